// Command sqlite writes each SMS into a database, exactly once: the resume token is stored in the transaction of the row.
package main

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"os/signal"
	"syscall"

	_ "modernc.org/sqlite"

	linksgate "github.com/linksgate/linksgate/clients/go"
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	db, err := sql.Open("sqlite", "sms.db")
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Exec(`CREATE TABLE IF NOT EXISTS sms (id TEXT PRIMARY KEY, iccid TEXT, text TEXT);
		CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY CHECK (one = 1), token TEXT)`); err != nil {
		return err
	}
	var token string
	if err := db.QueryRow(`SELECT token FROM position`).Scan(&token); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	client, err := linksgate.New([]string{"localhost:9090"})
	if err != nil {
		return err
	}
	for n, err := range client.Subscribe(ctx, linksgate.Earliest(), linksgate.After(token),
		linksgate.Kinds(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED)) {
		if err != nil {
			return err
		}
		if err := store(ctx, db, n); err != nil {
			return err
		}
	}
	return nil
}

func store(ctx context.Context, db *sql.DB, n *linksgatev1.Notification) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // does nothing after Commit
	if _, err := tx.Exec(`INSERT INTO sms VALUES (?, ?, ?)`, n.GetId(), n.GetSmsReceived().GetIccid(), n.GetSmsReceived().GetText()); err != nil {
		return err
	}
	if _, err := tx.Exec(`INSERT INTO position VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET token = excluded.token`, n.GetToken()); err != nil {
		return err
	}
	return tx.Commit()
}
