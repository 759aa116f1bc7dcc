"""Debian's ircd-hybrid, InspIRCd and ngIRCd, two of each, with throw-away passwords.

A server is started inside the lab and nowhere else: as a process of the recorder, not as a service.
"""

import os
import subprocess
import time

ALPHA, BETA, ROGUE = "10.79.0.1", "10.79.0.2", "10.79.0.3"
CLIENT_PORT, LINK_PORT = 6667, 7700
LINK_PASSWORD = "throw-away-link"
OPER_PASSWORD = "throw-away-oper"
NAMES = {ALPHA: "alpha.test", BETA: "beta.test", ROGUE: "gamma.test"}
IDS = {ALPHA: "0HA", BETA: "1HB", ROGUE: "7RG"}
RUNNING_USER = "irc"


def hybrid_configuration(own, folder):
    blocks = [f"""
        serverinfo {{ name = "{NAMES[own]}"; sid = "{IDS[own]}"; description = "recorded"; network_name = "TestNet";
            network_description = "TestNet"; hub = yes; default_max_clients = 512; max_nick_length = 15;
            max_topic_length = 160; }};
        class {{ name = "users"; ping_time = 90 seconds; number_per_ip_local = 100; number_per_ip_global = 100;
            max_number = 400; sendq = 1 megabyte; recvq = 8000 bytes; }};
        class {{ name = "servers"; ping_time = 90 seconds; connectfreq = 1 hour; max_number = 10;
            sendq = 2 megabytes; }};
        listen {{ flags = hidden; port = {CLIENT_PORT}, {LINK_PORT}; }};
        auth {{ user = "*@*"; class = "users"; flags = no_tilde, exceed_limit, can_flood; }};
        operator {{ name = "boss"; user = "*@*"; password = "{OPER_PASSWORD}"; encrypted = no; class = "users";
            umodes = locops, servnotice, wallop;
            flags = connect, connect:remote, squit, squit:remote, kill, kill:remote, kline, unkline, opme; }};
        channel {{ default_join_flood_count = 0; }};
        serverhide {{ disable_remote_commands = no; hide_servers = no; flatten_links = no; }};
        general {{ throttle_count = 1000; throttle_time = 1 second; ts_max_delta = 600 seconds;
            ts_warn_delta = 30 seconds; dots_in_ident = 2; ping_cookie = no; anti_nick_flood = no;
            default_floodcount = 0; pace_wait = 0; pace_wait_simple = 0; min_nonwildcard = 2; }};
        modules {{ path = "/usr/lib/ircd-hybrid/modules"; path = "/usr/lib/ircd-hybrid/modules/extra";
            path = "/usr/lib/ircd-hybrid/modules/autoload"; }};
        log {{ use_logging = yes; file {{ type = all; name = "{folder}/ircd.log"; size = unlimited; }}; }};
        shared {{ name = "*"; user = "*@*"; type = all; }};
    """]
    for peer in (address for address in NAMES if address != own):
        blocks.append(f"""connect {{ name = "{NAMES[peer]}"; host = "{peer}"; port = {LINK_PORT};
            send_password = "{LINK_PASSWORD}"; accept_password = "{LINK_PASSWORD}"; encrypted = no;
            class = "servers"; hub_mask = "*"; }};""")
    return "\n".join(blocks)


def inspircd_configuration(own, folder):
    lines = [f"""
        <config format="xml">
        <server name="{NAMES[own]}" description="recorded" network="TestNet" id="{IDS[own]}">
        <admin name="a" nick="a" email="a@example.test">
        <bind address="{own}" port="{CLIENT_PORT}" type="clients">
        <bind address="{own}" port="{LINK_PORT}" type="servers">
        <connect name="main" allow="*" timeout="20" pingfreq="120" hardsendq="1M" softsendq="64K" recvq="16K"
            localmax="100" globalmax="100" maxconnwarn="no" commandrate="100000" fakelag="no">
        <class name="all" commands="*" usermodes="*" chanmodes="*" privs="*">
        <type name="NetAdmin" classes="all">
        <oper name="boss" password="{OPER_PASSWORD}" host="*@*" type="NetAdmin">
        <dns server="127.0.0.1" timeout="1">
        <options defaultmodes="not" allowzerolimit="no">
        <security hideserver="" userstats="Pu" operspywhois="yes">
        <performance nouserdns="yes">
        <path pid="{folder}/inspircd.pid" datadir="{folder}" logdir="{folder}" runtimedir="{folder}"
            configdir="{folder}" moduledir="/usr/lib/inspircd/modules">
        <log method="file" type="* -USERINPUT -USEROUTPUT" level="default" target="ircd.log">
        <module name="md5"><module name="sha256"><module name="spanningtree">
    """]
    for peer in (address for address in NAMES if address != own):
        lines.append(f"""<link name="{NAMES[peer]}" ipaddr="{peer}" port="{LINK_PORT}" allowmask="{peer}"
            sendpass="{LINK_PASSWORD}" recvpass="{LINK_PASSWORD}">""")
    return "\n".join(lines)


def ngircd_configuration(own, folder):
    lines = [f"""
[Global]
    Name = {NAMES[own]}
    Info = recorded
    AdminEMail = a@example.test
    Ports = {CLIENT_PORT}, {LINK_PORT}
    Listen = {own}
    ServerUID = {RUNNING_USER}
    ServerGID = {RUNNING_USER}
[Limits]
    ConnectRetry = 14
    MaxConnections = 200
    MaxConnectionsIP = 100
    MaxJoins = 50
    MaxPenaltyTime = 0
[Options]
    DNS = no
    Ident = no
    PAM = no
    ConnectIPv6 = no
[Operator]
    Name = boss
    Password = {OPER_PASSWORD}
"""]
    for peer in (address for address in NAMES if address != own):
        lines.append(f"""[Server]
    Name = {NAMES[peer]}
    Host = {peer}
    Port = {LINK_PORT}
    MyPassword = {LINK_PASSWORD}
    PeerPassword = {LINK_PASSWORD}
    Passive = yes
""")
    return "\n".join(lines)


def find_ngircd(folder):
    """ngircd conflicts with ircd-hybrid as a package, so it is unpacked instead of installed."""
    program = os.path.join(folder, "usr/sbin/ngircd")
    if not os.path.exists(program):
        os.makedirs(folder, exist_ok=True)
        subprocess.run(["apt-get", "download", "ngircd"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        package = next(name for name in os.listdir(folder) if name.endswith(".deb"))
        subprocess.run(["dpkg-deb", "-x", package, "."], cwd=folder, check=True)
    return program


def start(lab, kind, host, own):
    folder = os.path.join(lab.folder, f"{kind}-{host}")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "server.conf")
    text = {"hybrid": hybrid_configuration, "inspircd": inspircd_configuration,
            "ngircd": ngircd_configuration}[kind](own, folder)
    with open(path, "w") as file:
        file.write(text)
    subprocess.run(["chown", "-R", RUNNING_USER, folder], check=True)
    words = {
        "hybrid": ["/usr/sbin/ircd-hybrid", "-foreground", "-configfile", path, "-pidfile", f"{folder}/pid",
                   "-klinefile", f"{folder}/k", "-dlinefile", f"{folder}/d", "-xlinefile", f"{folder}/x",
                   "-resvfile", f"{folder}/r", "-logfile", f"{folder}/ircd.log"],
        "inspircd": ["/usr/sbin/inspircd", "--config", path, "--nofork", "--nopid"],
    }.get(kind)
    if kind == "ngircd":
        words = [find_ngircd(os.path.join(lab.folder, "ngircd-package")), "-n", "-f", path]
    lab.start(host, words, user=RUNNING_USER)
    time.sleep(2.5)
