#!/usr/bin/env python3
"""Records the PyPI client library `ts3` against a stand-in for TeamSpeak's ServerQuery: no real server can be had.

    pip install ts3
    tests/record/teamspeak.py OUTPUT-FOLDER

Writes query.pcap and query.truth.json: what the clients did and were told. The client's bytes are the library's own; the
server's are those of `protocols/teamspeak.md` 5.
"""

import json
import os
import socket
import sys
import tempfile
import threading
import time

import ts3
from lab import Lab, inside

SERVER = "10.79.0.1"
PORT = 10011
PASSWORD = "throw-away"
HOSTS = {"server": [SERVER], "bot": ["10.79.0.20"], "guesser": ["10.79.0.30"]}
BANNER = (b"TS3\n\rWelcome to the TeamSpeak 3 ServerQuery interface, type \"help\" for a list of commands and "
          b"\"help <command>\" for information on a specific command.\n\r")
ANSWERS = {
    "version": "version=3.13.7 build=1655727713 platform=Linux",
    "whoami": "virtualserver_status=online virtualserver_id=1 client_id=5 client_nickname=serveradmin",
    "clientlist": "clid=1 cid=1 client_nickname=Alice\\sA client_type=0|clid=2 cid=1 client_nickname=Bob client_type=0",
}


def answer(line):
    word = line.split(" ")[0]
    if word == "login":
        right = PASSWORD in line
        return "error id=0 msg=ok" if right else "error id=520 msg=invalid\\sloginname\\sor\\spassword"
    if word == "permreset":
        return "error id=2568 msg=insufficient\\sclient\\spermissions failed_permid=4"
    body = ANSWERS.get(word)
    return (body + "\n\r" if body else "") + "error id=0 msg=ok"


def serve(connection):
    connection.sendall(BANNER)
    buffered = b""
    while True:
        try:
            received = connection.recv(4096)
        except OSError:
            return
        if not received:
            return
        buffered += received
        while b"\n" in buffered:
            line, _, buffered = buffered.partition(b"\n")
            line = line.decode().strip()
            if line:
                connection.sendall((answer(line) + "\n\r").encode())
            if line == "quit":
                connection.close()
                return


def listen():
    listener = socket.create_server((SERVER, PORT))

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def bot():
    """A query bot: logs in, looks around, kicks one and bans one, is refused once, keeps alive, leaves."""
    with ts3.query.TS3Connection(SERVER, PORT) as query:
        query.login(client_login_name="serveradmin", client_login_password=PASSWORD)
        query.use(sid=1)
        query.version()
        query.clientlist()
        query.sendtextmessage(targetmode=2, target=1, msg="hello | there")
        query.clientkick(reasonid=5, reasonmsg="out", clid=2)
        query.banclient(clid=1, time=60)
        try:
            query.permreset()
        except ts3.query.TS3QueryError:
            pass
        for _ in range(3):
            time.sleep(0.5)
            query.send_keepalive()
        query.whoami()
        query.quit()


def guess(tries):
    """Wrong passwords, a new connection each."""
    for number in range(tries):
        with ts3.query.TS3Connection(SERVER, PORT) as query:
            try:
                query.login(client_login_name="serveradmin", client_login_password=f"wrong-{number}")
            except ts3.query.TS3QueryError:
                pass


def main():
    output = sys.argv[1]
    os.makedirs(output, exist_ok=True)
    lab = Lab(HOSTS, tempfile.mkdtemp())
    try:
        inside("server", listen)
        lab.record(os.path.join(output, "query.pcap"), f"tcp port {PORT}")
        inside("bot", bot)
        inside("guesser", lambda: guess(12))
    finally:
        lab.close()
    truth = {
        "actors": {
            "10.79.0.20": {"role": "regular", "desc": "a query bot that logs in, looks around, kicks and bans one"},
            "10.79.0.30": {"role": "attacker", "desc": "12 wrong passwords, a new connection each"},
        },
        "signals": {
            "login.succeeded": 1, "login.failed": 12, "message.channel": 1, "user.kicked": 1, "user.banned": 1,
            "command.rejected": 1, "connection.opened": 13,
        },
    }
    with open(os.path.join(output, "query.truth.json"), "w") as file:
        json.dump(truth, file, indent=1)
        file.write("\n")


main()
