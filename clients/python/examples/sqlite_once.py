"""Writes each SMS into a database, exactly once: the resume token is stored in the transaction of
the row. Blocking."""

import sqlite3

import linksgate
from linksgate import blocking

database = sqlite3.connect("sms.db")
database.execute("CREATE TABLE IF NOT EXISTS sms (id TEXT PRIMARY KEY, iccid TEXT, text TEXT)")
database.execute("CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY, token TEXT)")
row = database.execute("SELECT token FROM position").fetchone()

with blocking.Client("localhost:9090") as client:
    for n in client.subscribe(
        after=row[0] if row else None,
        earliest=True,
        kinds=[linksgate.NotificationKind.NOTIFICATION_KIND_SMS_RECEIVED],
    ):
        sms = n.sms_received
        with database:  # one transaction
            database.execute("INSERT INTO sms VALUES (?, ?, ?)", (n.id, sms.iccid, sms.text))
            database.execute("INSERT OR REPLACE INTO position VALUES (1, ?)", (n.token,))
