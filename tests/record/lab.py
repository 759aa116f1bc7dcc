"""A small internet of network namespaces: hosts on a bridge, and a capture of everything that crosses it.

Everything is made by `Lab()` and removed by `Lab.close()`; the host's own network is not touched. Needs root,
iproute2 and tcpdump.
"""

import ctypes
import os
import socket
import subprocess
import threading
import time

PREFIX = "fwrec"
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


class Lab:
    """Hosts by name; `hosts` maps a name to its addresses."""

    def __init__(self, hosts, folder):
        self.folder = folder
        self.namespaces = [f"{PREFIX}-bridge"] + [f"{PREFIX}-{name}" for name in hosts]
        self.processes = []
        self.capture = None
        self.remove_namespaces()
        bridge = self.namespaces[0]
        run("ip", "netns", "add", bridge)
        run("ip", "-n", bridge, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", bridge, "link", "set", "br0", "up")
        for index, (name, addresses) in enumerate(hosts.items()):
            namespace = f"{PREFIX}-{name}"
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
            run("ip", "-n", bridge, "link", "add", f"p{index}", "type", "veth", "peer", "name", "eth0",
                "netns", namespace)
            run("ip", "-n", bridge, "link", "set", f"p{index}", "master", "br0", "up")
            for address in addresses:
                run("ip", "-n", namespace, "address", "add", f"{address}/16", "dev", "eth0")
            run("ip", "-n", namespace, "link", "set", "eth0", "up")
            threading.Thread(target=know_no_name, args=(inside(name, bind_resolver),), daemon=True).start()

    def start(self, host, words, user=None, **options):
        """A process inside a host, ended with the lab."""
        # `ip netns exec` has a mount namespace of its own, so the host's file stays as it is.
        resolver = os.path.join(self.folder, "resolv.conf")
        with open(resolver, "w") as file:
            file.write("nameserver 127.0.0.1\n")
        command = ["ip", "netns", "exec", f"{PREFIX}-{host}", "sh", "-c",
                   f'mount --bind {resolver} /etc/resolv.conf && exec "$@"', "sh"]
        if user:
            command += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        log = open(os.path.join(self.folder, f"{host}-{len(self.processes)}.log"), "wb")
        options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log} | options
        process = subprocess.Popen(command + list(words), **options)
        self.processes.append(process)
        return process

    def record(self, path, expression):
        """Everything on the bridge that fits `expression`, from now until the lab is closed."""
        command = ["ip", "netns", "exec", self.namespaces[0], "tcpdump", "-i", "br0", "-s", "0", "-U", "-n",
                   "-Z", "root", "-w", path, expression]
        self.capture = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(1.5)

    def close(self):
        if self.capture:
            time.sleep(1)
            self.capture.terminate()
            self.capture.wait()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
        self.remove_namespaces()

    def remove_namespaces(self):
        for namespace in self.namespaces:
            subprocess.run(["ip", "netns", "delete", namespace], stderr=subprocess.DEVNULL, check=False)


def bind_resolver():
    resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    resolver.bind(("127.0.0.1", 53))
    return resolver


def know_no_name(resolver):
    """Answers every question with "no such name" (RFC 1035), so that no server waits for names."""
    while True:
        question, asker = resolver.recvfrom(512)
        resolver.sendto(question[:2] + b"\x81\x83" + question[4:6] + b"\x00" * 6 + question[12:], asker)


def inside(host, action):
    """Runs `action` with this thread's sockets in a host's namespace; answers what it answers."""
    result = []

    def work():
        with open(f"/run/netns/{PREFIX}-{host}") as namespace:
            if LIBC.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        result.append(action())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return result[0]
