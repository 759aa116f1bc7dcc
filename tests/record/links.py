#!/usr/bin/env python3
"""Records two linked servers of one make with people on both: burst, talk, netsplit, split riding, nick
collisions, rejoin, talk.

    tests/record/links.py hybrid|inspircd|ngircd OUTPUT-FOLDER

Writes MAKE-link.pcap and MAKE-link.truth.json: what the script did and what people were told, never what
Floodwall says about it.
"""

import json
import os
import sys
import tempfile
import time

import servers
from lab import Lab
from people import Client, Irssi, Weechat
from servers import ALPHA, BETA, CLIENT_PORT, LINK_PORT, OPER_PASSWORD

HOSTS = {
    "alpha": [ALPHA],
    "beta": [BETA],
    "irssi": ["10.79.0.20"],
    "weechat": ["10.79.0.30"],
    "people": [f"10.79.0.{last}" for last in (21, 22, 23, 24, 25, 26, 31, 33, 34, 36)],
}


def link(oper, kind, is_again=False):
    target = f"CONNECT {servers.NAMES[BETA]}" + (f" {LINK_PORT}" if kind != "inspircd" else "")
    oper.send(target)
    # ngIRCd does not try one peer again before its ConnectRetry is over, and a lasting link not before 3 seconds.
    time.sleep(14 if kind == "ngircd" and is_again else 4)


def main():
    kind, output = sys.argv[1], sys.argv[2]
    folder = tempfile.mkdtemp(prefix="floodwall-record-")
    os.chmod(folder, 0o755)
    lab = Lab(HOSTS, folder)
    steps = []

    def step(text):
        steps.append({"at": round(time.time(), 3), "step": text})
        print(f"{time.time():.3f} {text}", flush=True)

    try:
        servers.start(lab, kind, "alpha", ALPHA)
        servers.start(lab, kind, "beta", BETA)
        os.makedirs(output, exist_ok=True)
        path = os.path.join(output, f"{kind}-link.pcap")
        lab.record(path, "tcp")
        on_alpha = lambda last, nick, user=None: Client(
            "people", f"10.79.0.{last}", (ALPHA, CLIENT_PORT), nick, user)
        on_beta = lambda last, nick, user=None: Client(
            "people", f"10.79.0.{last}", (BETA, CLIENT_PORT), nick, user)

        step("people arrive")
        anna = Irssi(lab, "irssi", (ALPHA, CLIENT_PORT), "anna", f"{folder}/irssi")
        bert = Weechat(lab, "weechat", (BETA, CLIENT_PORT), "bert", f"{folder}/weechat")
        alex, opera = on_alpha(21, "alex"), on_alpha(23, "opera")
        bea, operb = on_beta(31, "bea"), on_beta(33, "operb")
        for oper in (opera, operb):
            oper.send(f"OPER boss {OPER_PASSWORD}")
            oper.wait_for(" 381 ")

        step("link")
        link(opera, kind)
        step("anna creates #war, everybody joins")
        anna.join("#war")
        time.sleep(2.2)
        for person in (bert, alex, bea, operb, opera):
            person.join("#war")
        alex.wait_for(" JOIN ", "operb")
        time.sleep(1)
        anna.type("/mode #war +b *!*@203.0.113.9")
        anna.type("/topic #war original")
        time.sleep(1)
        step("talk")
        for index, person in enumerate((anna, bert, alex, bea)):
            person.say("#war", f"message {index} across the link")
            time.sleep(0.4)
        alex.say("bea", "privately")
        operb.send("NICK operbee")
        time.sleep(0.6)
        operb.send("NICK operb")
        time.sleep(1)

        step("netsplit")
        opera.send(f"SQUIT {servers.NAMES[BETA]} :maintenance")
        time.sleep(2.5)
        step("split riding on beta: everybody leaves #war, bert comes back as its creator")
        for person in (bea, operb):
            person.send("PART #war")
        bert.type("/quote PART #war")
        time.sleep(1.5)
        bert.join("#war")
        time.sleep(1)
        bea.join("#war")
        time.sleep(0.5)
        bert.type("/quote MODE #war +o bea")
        time.sleep(0.5)
        step("three nicknames on both sides")
        dup_old = on_alpha(24, "dup", "one")
        ghost_old = on_alpha(25, "ghost", "same")
        time.sleep(2.2)
        dup_new = on_beta(34, "dup", "two")
        ghost_new = on_beta(25, "ghost", "same")
        while time.time() % 1 > 0.1:
            time.sleep(0.01)
        twin_alpha, twin_beta = on_alpha(26, "twin", "t1"), on_beta(36, "twin", "t2")
        time.sleep(1)

        step("rejoin")
        mark = len(bea.lines)
        link(opera, kind, is_again=True)
        for person in (dup_old, dup_new, ghost_old, ghost_new, twin_alpha, twin_beta):
            person.send("PING :still-here")
        time.sleep(1)
        step("bert tries the ops he had")
        bert.type("/quote KICK #war alex :mine")
        time.sleep(1)
        alex.say("#war", "after the rejoin")
        bea.say("#war", "after the rejoin")
        time.sleep(1)
        step("a kill across the link, then everybody leaves")
        victim = on_beta(22, "victim")
        time.sleep(0.5)
        opera.send("KILL victim :bye")
        time.sleep(1)
        after_rejoin = [line for _, line in bea.lines[mark:]]
        for person in (alex, bea, operb, dup_old, dup_new, ghost_old, ghost_new, twin_alpha, twin_beta):
            person.send("QUIT :end of recording")
        anna.type("/quit")
        bert.type("/quit")
        time.sleep(1)
        opera.send("QUIT :end of recording")
        time.sleep(1)

        def fate(person):
            if any("still-here" in line and "PONG" in line for _, line in person.lines):
                renamed = [line.split()[-1].lstrip(":") for _, line in person.lines
                           if f":{person.nickname}!" in line and " NICK " in line]
                return f"renamed to {renamed[-1]}" if renamed else "stayed"
            return "killed"

        people = {"anna": anna, "bert": bert, "alex": alex, "bea": bea, "opera": opera, "operb": operb}
        truth = {
            "make": kind,
            "actors": {},
            "steps": steps,
            "sent": {name: person.sent for name, person in people.items()},
            "links_opened": 2,
            "splits": 1,
            "rejoins": 1,
            "collisions": {
                "dup": {"alpha": fate(dup_old), "beta": fate(dup_new)},
                "ghost": {"alpha": fate(ghost_old), "beta": fate(ghost_new)},
                "twin": {"alpha": fate(twin_alpha), "beta": fate(twin_beta)},
            },
            "killed_by_operator": fate(victim),
            "deopped_at_rejoin": [line for line in after_rejoin if " MODE #war " in line and "-o" in line],
            "timestamp_notices": [line for line in after_rejoin if "TS for #war" in line],
            "kick_after_rejoin": bool(alex.heard(" KICK #war alex")),
        }
        with open(os.path.join(output, f"{kind}-link.truth.json"), "w") as file:
            json.dump(truth, file, indent=1)
            file.write("\n")
    finally:
        lab.close()


main()
