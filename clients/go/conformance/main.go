// Command conformance is the Go harness of the conformance suite; see ../../conformance/README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	linksgate "github.com/linksgate/linksgate/clients/go"
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

type scenario struct {
	Mode        string
	Addresses   []string
	ClientName  string `json:"client_name"`
	Token       string
	TokenFile   string `json:"token_file"`
	CAFile      string `json:"ca_file"`
	CertFile    string `json:"cert_file"`
	KeyFile     string `json:"key_file"`
	HeartbeatMS int    `json:"heartbeat_ms"`
	Start       string
	Checkpoint  string
	Accounts    []string
	Kinds       []string
	ICCIDs      []string `json:"iccids"`
	OnGap       string   `json:"on_gap"`
	UntilHead   bool     `json:"until_head"`
	MaxBatch    int      `json:"max_batch"`
	HandlerMS   int      `json:"handler_ms"`
	FailAt      int      `json:"fail_at"`
	Group       string
	Parallel    int
	GraceMS     int `json:"grace_ms"`
}

type event map[string]any

var output sync.Mutex

func say(e event) {
	output.Lock()
	defer output.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(e)
}

func main() {
	input := bufio.NewScanner(os.Stdin)
	input.Scan()
	s := scenario{HeartbeatMS: 10_000, MaxBatch: 64, Parallel: 4, GraceMS: 30_000}
	if err := json.Unmarshal(input.Bytes(), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	go func() {
		for input.Scan() {
			if strings.Contains(input.Text(), `"stop"`) {
				stop()
			}
		}
	}()
	client, err := linksgate.New(s.Addresses, s.options()...)
	switch s.Mode {
	case "replay", "bare":
		s.measure(ctx, client)
		return
	}
	if err == nil && s.Mode == "work" {
		err = client.Work(ctx, s.Group, s.handle, linksgate.Parallel(s.Parallel), linksgate.Grace(time.Duration(s.GraceMS)*time.Millisecond),
			linksgate.MemberName(s.ClientName), linksgate.MemberHeartbeat(time.Duration(s.HeartbeatMS)*time.Millisecond))
	} else if err == nil {
		err = s.subscribe(ctx, client)
	}
	stopped(err)
}

func (s *scenario) options() (options []linksgate.Option) {
	if s.Token != "" {
		options = append(options, linksgate.Token(s.Token))
	}
	if s.TokenFile != "" {
		options = append(options, linksgate.TokenFile(s.TokenFile))
	}
	if s.CAFile != "" {
		options = append(options, linksgate.CA(s.CAFile))
	}
	if s.CertFile != "" {
		options = append(options, linksgate.Certificate(s.CertFile, s.KeyFile))
	}
	return options
}

func (s *scenario) subscribe(ctx context.Context, client *linksgate.Client) error {
	options := []linksgate.SubscribeOption{
		linksgate.MaxBatch(s.MaxBatch), linksgate.Heartbeat(time.Duration(s.HeartbeatMS) * time.Millisecond), linksgate.ClientName(s.ClientName),
		linksgate.Accounts(s.Accounts...), linksgate.ICCIDs(s.ICCIDs...),
	}
	switch token, after := strings.CutPrefix(s.Start, "after:"); {
	case after:
		options = append(options, linksgate.After(token))
	case s.Start == "earliest":
		options = append(options, linksgate.Earliest())
	}
	if s.Checkpoint != "" {
		options = append(options, linksgate.From(linksgate.FileCheckpoint(s.Checkpoint)))
	}
	for _, kind := range s.Kinds {
		options = append(options, linksgate.Kinds(linksgatev1.NotificationKind(linksgatev1.NotificationKind_value["NOTIFICATION_KIND_"+kind])))
	}
	if s.OnGap == "continue" {
		options = append(options, linksgate.ContinueAfterGaps(func(gap *linksgatev1.Gap) {
			say(event{"event": "gap", "reason": strings.TrimPrefix(gap.GetReason().String(), "GAP_REASON_")})
		}))
	}
	if s.UntilHead {
		options = append(options, linksgate.UntilHead())
	}
	count := 0
	for n, err := range client.Subscribe(ctx, options...) {
		if err != nil {
			return err
		}
		say(event{"event": "notification", "id": n.GetId(), "sequence": n.GetSequence(), "token": n.GetToken(),
			"text": n.GetSmsReceived().GetText(), "body_bytes": len(n.GetBody()) + len(n.GetBinaryBody())})
		if count++; count == s.FailAt {
			os.Exit(3)
		}
		select {
		case <-time.After(time.Duration(s.HandlerMS) * time.Millisecond):
		case <-ctx.Done():
		}
		say(event{"event": "handled", "id": n.GetId()})
	}
	return nil
}

// measure counts a replay.
func (s *scenario) measure(ctx context.Context, client *linksgate.Client) {
	count, began := 0, time.Time{}
	handled := func() {
		if count++; count == 1 {
			began = time.Now()
		}
	}
	if s.Mode == "replay" {
		for _, err := range client.Subscribe(ctx, linksgate.Earliest(), linksgate.UntilHead(), linksgate.MaxBatch(s.MaxBatch)) {
			if err != nil {
				panic(err)
			}
			handled()
		}
	} else {
		conn, err := grpc.NewClient(s.Addresses[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			panic(err)
		}
		stream, err := linksgatev1.NewNotificationServiceClient(conn).Subscribe(ctx, &linksgatev1.SubscribeRequest{
			Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}},
			Until: &linksgatev1.SubscribeRequest_UntilHead{UntilHead: true}, MaxBatch: int32(s.MaxBatch),
		})
		for err == nil {
			var frame *linksgatev1.SubscribeResponse
			if frame, err = stream.Recv(); err == nil {
				for range frame.GetBatch().GetNotifications() {
					handled()
				}
			}
		}
	}
	say(event{"event": "stopped", "error": "", "count": count, "seconds": time.Since(began).Seconds()})
}

// handle does what the text of the SMS asks for.
func (s *scenario) handle(ctx context.Context, d *linksgate.Delivery) (err error) {
	text := d.GetSmsReceived().GetText()
	say(event{"event": "begin", "id": d.GetId(), "attempt": d.Attempt, "iccid": d.GetSmsReceived().GetIccid(), "text": text})
	word, argument, _ := strings.Cut(text, " ")
	number, _ := strconv.Atoi(argument)
	lasting := time.Duration(number) * time.Millisecond
	outcome := "ok"
	defer func() { say(event{"event": "end", "id": d.GetId(), "outcome": outcome}) }()
	first := d.Attempt == 1
	switch {
	case word == "fail", word == "fail-once" && first:
		outcome = "fail"
		return errors.New("asked to fail")
	case word == "panic":
		outcome = "fail"
		panic("asked to")
	case word == "park":
		outcome = "park"
		return linksgate.Park("asked to")
	case word == "retry" && first:
		outcome = "retry"
		return linksgate.RetryAfter(lasting, nil)
	case word == "down" && first:
		outcome = "down"
		return linksgate.EverythingIsDown(lasting, nil)
	case word == "sleep":
		select {
		case <-time.After(lasting):
		case <-ctx.Done():
			outcome = "cancelled"
			return context.Cause(ctx)
		}
	}
	return nil
}

// stopped says how it ended.
func stopped(err error) {
	e := event{"event": "stopped", "error": "", "detail": "", "first_available_token": ""}
	if err != nil {
		e["error"], e["detail"] = "Other", err.Error()
	}
	for name, kind := range map[string]error{
		"Expired": linksgate.ErrExpired, "DataLoss": linksgate.ErrDataLoss, "OtherLog": linksgate.ErrOtherLog,
		"InvalidRequest": linksgate.ErrInvalidRequest, "PermissionDenied": linksgate.ErrPermissionDenied, "NotFound": linksgate.ErrNotFound,
		"Unsupported": linksgate.ErrUnsupported,
	} {
		if errors.Is(err, kind) {
			e["error"] = name
		}
	}
	if said := new(linksgate.Error); errors.As(err, &said) {
		e["first_available_token"] = said.FirstAvailableToken
	}
	say(e)
}
