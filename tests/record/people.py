"""Those who use the servers: scripted clients, irssi, weechat, and lines of any kind on a socket."""

import fcntl
import os
import pty
import socket
import termios
import threading
import time

from lab import inside


class Wire:
    """A line-based connection that remembers everything it was told, with the time of each line."""

    def __init__(self, host, source, target, on_line=None):
        self.lines = []
        self.closed = False
        self.on_line = on_line
        self.lock = threading.Lock()

        def connect():
            connection = socket.socket()
            connection.bind((source, 0))
            connection.settimeout(10)
            connection.connect(target)
            connection.settimeout(None)
            return connection

        self.socket = inside(host, connect)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        rest = b""
        try:
            while data := self.socket.recv(65536):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._take(line.rstrip(b"\r").decode("latin-1"))
        except OSError:
            pass
        self.closed = True

    def _take(self, line):
        with self.lock:
            self.lines.append((time.time(), line))
        if self.on_line:
            self.on_line(self, line)

    def send(self, *lines):
        try:
            self.socket.sendall("".join(f"{line}\r\n" for line in lines).encode("latin-1"))
        except OSError:
            self.closed = True

    def heard(self, *words):
        """Every line so far in which all words stand."""
        with self.lock:
            return [line for _, line in self.lines if all(word in line for word in words)]

    def wait_for(self, *words, seconds=15):
        deadline = time.time() + seconds
        while time.time() < deadline:
            if found := self.heard(*words):
                return found[-1]
            if self.closed:
                break
            time.sleep(0.02)
        return None

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


class Client(Wire):
    """A scripted client that registers and answers PING."""

    def __init__(self, host, source, target, nickname, username=None):
        super().__init__(host, source, target, self._answer)
        self.nickname = nickname
        self.sent = {"messages": 0, "joins": 0}
        self.send(f"NICK {nickname}", f"USER {username or nickname} 0 * :recorded user")
        if not self.wait_for(" 001 "):
            raise RuntimeError(f"{nickname} was not let in: {self.lines[-3:]}")

    @staticmethod
    def _answer(self, line):
        if line.startswith("PING"):
            self.send("PONG" + line[4:])

    def join(self, channel):
        self.sent["joins"] += 1
        self.send(f"JOIN {channel}")

    def say(self, target, text):
        self.sent["messages"] += 1
        self.send(f"PRIVMSG {target} :{text}")


class Typed:
    """A client that is told what to do in the words a person would type; it counts what it was told."""

    def __init__(self):
        self.sent = {"messages": 0, "joins": 0}

    def type(self, line):
        raise NotImplementedError

    def join(self, channel):
        self.sent["joins"] += 1
        self.type(f"/join {channel}")

    def say(self, target, text):
        self.sent["messages"] += 1
        self.type(f"/msg {target} {text}")


class Irssi(Typed):
    """irssi behind a pseudo-terminal, told what to do as a person would type it."""

    def __init__(self, lab, host, target, nickname, home):
        super().__init__()
        os.makedirs(home, exist_ok=True)
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x28\x00\x78\x00\x00\x00\x00\x00")
        self.master = master
        lab.start(host, ["env", "TERM=xterm", "irssi", f"--home={home}", "-c", target[0], "-p", str(target[1]),
                         "-n", nickname], stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        threading.Thread(target=self._drain, daemon=True).start()
        time.sleep(4)

    def _drain(self):
        try:
            while os.read(self.master, 65536):
                pass
        except OSError:
            pass

    def type(self, line):
        os.write(self.master, line.encode() + b"\n")


class Weechat(Typed):
    """weechat without a screen, told what to do through its pipe."""

    def __init__(self, lab, host, target, nickname, home):
        super().__init__()
        os.makedirs(home, exist_ok=True)
        self.pipe = os.path.join(home, "pipe")
        commands = [f"/set fifo.file.path {self.pipe}", "/fifo enable",
                    f"/server add lab {target[0]}/{target[1]} -notls -nicks={nickname}",
                    "/set irc.server_default.capabilities \"\"", "/connect lab"]
        words = ["weechat-headless", "--dir", home]
        for command in commands:
            words += ["-r", command]
        lab.start(host, words, start_new_session=True)
        time.sleep(4)

    def type(self, line):
        with open(self.pipe, "w") as pipe:
            pipe.write(f"irc.server.lab *{line}\n")
