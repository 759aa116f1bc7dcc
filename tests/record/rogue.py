#!/usr/bin/env python3
"""Records a rogue server that logs in to a real ircd-hybrid with the right password and breaks one invariant of
the TS protocol per connection, and some that look like it and break none.

    tests/record/rogue.py OUTPUT-FOLDER

Writes hybrid-rogue.pcap and hybrid-rogue.truth.json. What each act must raise is written down here, from the
protocol's rules, beside what it sends.
"""

import json
import os
import sys
import tempfile
import time

import servers
from lab import Lab
from people import Client, Wire
from servers import ALPHA, CLIENT_PORT, LINK_PASSWORD, ROGUE

CAPABILITIES = "CAPAB :MLOCK KNOCK KLN TBURST RESYNC ENCAP UNKLN DLN UNDLN RHOST CLUSTER EOB HOP"
LONGER_THAN_A_CROSSING = 12


class Rogue(Wire):
    """A server that calls itself gamma.test."""

    def __init__(self, alpha_channel_time):
        super().__init__("rogue", ROGUE, (ALPHA, CLIENT_PORT))
        self.time = alpha_channel_time

    def introduce(self, password=LINK_PASSWORD):
        self.send(f"PASS {password}", CAPABILITIES, "SERVER gamma.test 1 7RG + :rogue")

    def vouch(self, versions="6 6", seconds=0):
        self.send(f":7RG SVINFO {versions} 0 :{int(time.time()) + seconds}")

    def user(self, nickname, user_id, timestamp=None, server="7RG"):
        stamp = int(time.time()) if timestamp is None else timestamp
        return (f":{server} UID {nickname} 1 {stamp} +i ~{nickname} 10.79.9.9 10.79.9.9 10.79.9.9 {user_id} * "
                f":rogue user")

    def burst(self, *lines):
        self.introduce()
        self.wait_for("SERVER alpha.test")
        self.vouch()
        self.send(self.user("evil", "7RGAAAAAA"), self.user("helper", "7RGAAAAAB"),
                  f":7RG SJOIN {self.time} #war + :7RGAAAAAA 7RGAAAAAB", *lines, "PING :7RG", ":7RG EOB")
        self.wait_for("PONG alpha.test")
        time.sleep(0.3)


def send(*lines, before=()):
    """An act that is a normal burst, then these lines; `{t}` is the channel's time, `{now}` the time."""

    def act(rogue, people):
        rogue.burst(*before)
        rogue.send(*(fill(line, rogue, people) for line in lines))

    return act


def fill(line, rogue, people):
    return line.format(t=rogue.time, older=rogue.time - 100000, newer=rogue.time + 30, now=int(time.time()),
                       future=int(time.time()) + 100000, anna=people["anna_id"])


def handshake(*parts):
    """An act before the burst: strings are sent, functions are called."""

    def act(rogue, people):
        for part in parts:
            if callable(part):
                part(rogue)
            else:
                rogue.send(fill(part, rogue, people))

    return act


def bounce(rogue, people):
    rogue.burst()
    people["anna"].send("MODE #war +m")
    rogue.wait_for("TMODE", "+m")
    rogue.send(f":7RG TMODE {rogue.time} #war -m")
    people["anna"].wait_for("MODE #war -m")


def younger_ops_then_kick(rogue, people):
    """Ops of a younger SJOIN, which alpha ignores and gamma therefore had to forget."""
    rogue.introduce()
    rogue.wait_for("SERVER alpha.test")
    rogue.vouch()
    rogue.send(rogue.user("evil", "7RGAAAAAA"), f":7RG SJOIN {rogue.time + 30} #war + :@7RGAAAAAA", "PING :7RG",
               ":7RG EOB")
    rogue.wait_for("PONG alpha.test")
    time.sleep(LONGER_THAN_A_CROSSING)
    rogue.send(f":7RGAAAAAA TMODE {rogue.time} #war +t")


def after_a_while(line):
    def act(rogue, people):
        rogue.burst()
        time.sleep(LONGER_THAN_A_CROSSING)
        rogue.send(fill(line, rogue, people))

    return act


def many(make, count, *before):
    def act(rogue, people):
        rogue.burst(*before)
        rogue.send(*(fill(make(index), rogue, people) for index in range(count)))

    return act


def letters(index):
    return "".join(chr(65 + index // 26 ** place % 26) for place in (4, 3, 2, 1, 0))


def introduced(index):
    return f":7RG UID mass{index} 1 {{now}} +i ~m 10.79.9.9 10.79.9.9 10.79.9.9 7RGB{letters(index)} * :m"


def served(index):
    return f":7RG SID leaf{index}.test 2 8{letters(index)[-2:]} + :leaf"


# Name, invariant of irc.md C6 (0: none), signals by kind and reason (None: without), what is done.
ACTS = [
    ("before-server", 1, [("link.disordered", "before-server")],
     handshake(f"PASS {LINK_PASSWORD}", CAPABILITIES, ":7RG UID early 1 {now} +i ~e h h h 7RGAAAAAZ * :early",
               "SERVER gamma.test 1 7RG + :rogue", lambda rogue: rogue.wait_for("SERVER alpha.test"),
               lambda rogue: rogue.vouch(), "PING :7RG", ":7RG EOB")),
    ("server-twice", 1, [("link.disordered", "server-twice")], send("SERVER gamma.test 1 7RG + :rogue")),
    ("capab-twice", 1, [("link.disordered", "capab-twice")], send(CAPABILITIES)),
    ("client-command", 1, [("link.disordered", "client-command")], send("USER evil 0 * :evil")),
    ("no-svinfo", 2, [("link.incompatible", "no-svinfo")],
     handshake(lambda rogue: rogue.introduce(), lambda rogue: rogue.wait_for("SERVER alpha.test"),
               ":7RG UID evil 1 {now} +i ~e h h h 7RGAAAAAA * :e", "PING :7RG", ":7RG EOB")),
    ("version", 2, [("link.incompatible", "version")],
     handshake(lambda rogue: rogue.introduce(), lambda rogue: rogue.wait_for("SERVER alpha.test"),
               lambda rogue: rogue.vouch("5 3"))),
    ("clock-far-off", 2, [("link.incompatible", "clock")],
     handshake(lambda rogue: rogue.introduce(), lambda rogue: rogue.wait_for("SERVER alpha.test"),
               lambda rogue: rogue.vouch(seconds=-4000))),
    ("clock-off", 2, [("link.incompatible", "clock-warning")],
     handshake(lambda rogue: rogue.introduce(), lambda rogue: rogue.wait_for("SERVER alpha.test"),
               lambda rogue: rogue.vouch(seconds=-200), "PING :7RG", ":7RG EOB")),
    ("fake-source", 3, [("link.fake-direction", "source")], send(":{anna} PRIVMSG #war :not anna")),
    ("foreign-introduction", 3, [("link.fake-direction", "introduction")],
     send(":7RG UID forged 1 {now} +i ~f h h h 0HAZZZZZZ * :forged")),
    ("unknown-source", 3, [("link.fake-direction", "unknown-source")], send(":9ZZ AWAY :from nowhere")),
    ("introduced-twice", 4, [("link.reintroduced", "user")],
     send(":7RG UID evil2 1 {now} +i ~e h h h 7RGAAAAAA * :again")),
    ("spoke-after-quit", 4, [("link.reintroduced", "gone")],
     send(":7RGAAAAAA QUIT :gone", ":7RGAAAAAA PRIVMSG #war :still here")),
    ("malformed-uid", 5, [("link.malformed", "uid")], send(":7RG UID bad 1 {now} +i ~b h h h 7rgaaaaaa * :bad")),
    ("wrong-arity", 5, [("link.malformed", "arity")], send(":7RG UID bad 1 {now} +i ~b h h 7RGAAAAAC :bad")),
    ("line-too-long", 5, [("link.malformed", "line-too-long")], send(":7RGAAAAAA AWAY :" + "x" * 600)),
    ("nul-inside", 5, [("link.malformed", "nul")], send(":7RGAAAAAA AWAY :x\0y")),
    ("join-of-others", 6, [("link.forged-join", "member")], send(":7RG SJOIN {t} #war + :{anna}")),
    ("join-of-local", 6, [("link.forged-join", "local-channel")], send(":7RG SJOIN {now} &war + :7RGAAAAAA")),
    ("join-by-user", 6, [("link.forged-join", "user-source")], send(":7RGAAAAAA SJOIN {now} #new + :7RGAAAAAB")),
    ("timestamp-zero", 7, [("link.timestamp-zero", "op")], send(":7RG SJOIN 0 #fresh + :@7RGAAAAAA")),
    ("channel-in-future", 8, [("link.timestamp-implausible", "future")],
     send(":7RG SJOIN {future} #later + :@7RGAAAAAA")),
    ("nick-in-prehistory", 8, [("link.timestamp-implausible", "past")],
     send(":7RG UID old 1 1 +i ~o h h h 7RGAAAAAC * :old")),
    ("takeover", 9, [("link.timestamp-backwards", "op")], send(":7RG SJOIN {older} #old + :@7RGAAAAAA")),
    ("backwards-without-op", 9, [("link.timestamp-backwards", "no-op")],
     send(":7RG SJOIN {older} #old2 + :7RGAAAAAA")),
    ("mode-newer", 10, [("link.timestamp-mismatch", "newer")],
     after_a_while(":7RGAAAAAA TMODE {newer} #war +t")),
    ("mask-older", 10, [("link.timestamp-mismatch", "older")], send(":7RG BMASK {older} #war b :*!*@203.0.113.1")),
    ("server-op", 11, [("link.server-mode", None)], send(":7RG TMODE {t} #war +o 7RGAAAAAA")),
    ("plain-join", 12, [("link.plain-join", "join")], send(":7RGAAAAAA JOIN #unseen")),
    ("ops-kept", 13, [("link.ops-kept", None)], younger_ops_then_kick),
    ("op-from-nowhere", 14, [("link.unopped-action", "mode")], send(":7RGAAAAAA TMODE {t} #war +n")),
    ("kick-from-nowhere", 14, [("link.unopped-action", "kick")], send(":7RGAAAAAA KICK #war 7RGAAAAAB :out")),
    ("save-elsewhen", 15, [("link.impossible", "save")], send(":7RG SAVE {anna} 12345")),
    ("kill-of-nobody", 15, [("link.impossible", "kill")], send(":7RG KILL 7RGZZZZZZ :gamma.test (nobody)")),
    ("nick-backwards", 15, [("link.impossible", "nick")], send(":7RGAAAAAA NICK evil3 :1700000000")),
    ("bounce", 16, [("link.bounced-mode", None)], bounce),
    ("mass-introduction", 17, [("link.mass-action", "introductions")], many(introduced, 300)),
    ("mass-kill", 17, [("link.mass-action", "kills")],
     many(lambda index: f":7RG KILL 7RGB{letters(index)} :gamma.test (mass)", 40,
          *(introduced(index).replace("{now}", str(int(time.time()))) for index in range(40)))),
    ("mass-split", 17, [("link.mass-action", "splits")],
     many(lambda index: f":7RG SQUIT 8{letters(index)[-2:]} :mass", 12, *(served(index) for index in range(12)))),
    ("mass-ban", 17, [("link.mass-action", "bans")],
     many(lambda index: f":7RGAAAAAA KLINE alpha.test 60 user{index} host{index}.test :mass", 40)),
    ("wrong-password", 18, [("login.failed", None)], handshake(lambda rogue: rogue.introduce("wrong-password"))),
    # What looks like it and is not.
    ("younger-join-with-op", 0, [], send(":7RG SJOIN {newer} #war + :@7RGAAAAAA")),
    ("net-join", 0, [],
     send(":7RG SID leaf.test 2 8AA + :leaf", ":8AA UID leafy 1 {now} +i ~l h h h 8AAAAAAAA * :leaf",
          ":8AA SJOIN {older} #old3 + :@8AAAAAAAA", ":8AA EOB")),
    ("nick-in-another-case", 0, [], send(":7RGAAAAAA NICK EVIL :{now}")),
    ("ordinary-talk", 0, [],
     send(":7RGAAAAAA PRIVMSG #war :hello", ":7RGAAAAAA AWAY :tea", ":7RGAAAAAA PART #war",
          ":7RG SJOIN {now} #mine +nt :@7RGAAAAAA", ":7RGAAAAAA TMODE {now} #mine +o 7RGAAAAAB",
          ":7RGAAAAAA KICK #mine 7RGAAAAAB :bye", ":7RGAAAAAA QUIT :bye")),
]


def main():
    output = sys.argv[1]
    only = sys.argv[2:]
    folder = tempfile.mkdtemp(prefix="floodwall-record-")
    os.chmod(folder, 0o755)
    lab = Lab({"alpha": [ALPHA], "rogue": [ROGUE], "people": ["10.79.0.20", "10.79.0.21"]}, folder)
    usurper = {"role": "usurper", "desc": "links with the right password and breaks one invariant per connection"}
    truth = {"make": "hybrid", "actors": {ROGUE: usurper}, "link_address": ROGUE, "acts": []}
    try:
        servers.start(lab, "hybrid", "alpha", ALPHA)
        os.makedirs(output, exist_ok=True)
        lab.record(os.path.join(output, "hybrid-rogue.pcap"), f"tcp and host {ROGUE}")
        anna = Client("people", "10.79.0.20", (ALPHA, CLIENT_PORT), "anna")
        oper = Client("people", "10.79.0.21", (ALPHA, CLIENT_PORT), "oper")
        anna.join("#war")
        for channel in ("#old", "#old2", "#old3"):
            anna.join(channel)
            time.sleep(0.1)
        anna.send("MODE #war")
        channel_time = int(anna.wait_for(" 329 ").split()[-1])
        # The rogue's introductions must not be older than the channels.
        time.sleep(1.1)
        people = {"anna": anna, "oper": oper, "anna_id": "0HAAAAAAA"}
        for name, invariant, signals, act in ACTS:
            if only and name not in only:
                continue
            rogue = Rogue(channel_time)
            if name in ("takeover", "backwards-without-op", "net-join"):
                channel = {"takeover": "#old", "backwards-without-op": "#old2", "net-join": "#old3"}[name]
                rogue.also = f":7RG SJOIN {channel_time} {channel} + :7RGAAAAAB"
                plain = rogue.burst
                rogue.burst = lambda *lines, plain=plain, rogue=rogue: plain(rogue.also, *lines)
            act(rogue, people)
            time.sleep(0.6)
            answers = [line for _, line in rogue.lines if any(word in line for word in ("ERROR", "KILL", "SQUIT"))]
            rogue.close()
            time.sleep(0.4)
            truth["acts"].append({
                "name": name, "invariant": invariant, "port": rogue.port,
                "signals": [{"kind": kind, "reason": reason} for kind, reason in signals],
                "server_answered": answers[:3],
            })
            print(f"{time.time():.3f} {name} {answers[:1]}", flush=True)
        with open(os.path.join(output, "hybrid-rogue.truth.json"), "w") as file:
            json.dump(truth, file, indent=1)
            file.write("\n")
    finally:
        lab.close()


main()
