"""A mail server that keeps what it is given: as much of SMTP (RFC 5321) as a sender needs."""

import socketserver
import threading


class Handler(socketserver.StreamRequestHandler):
    def say(self, line):
        self.wfile.write(f"{line}\r\n".encode())

    def handle(self):
        self.say("220 mail.test")
        recipients = []
        while line := self.rfile.readline().decode().strip():
            verb = line.split(" ")[0].upper()
            if verb == "RCPT":
                recipients.append(line)
                self.say("250 ok")
            elif verb == "DATA":
                self.say("354 go on")
                content = []
                while (part := self.rfile.readline()) not in (b".\r\n", b""):
                    content.append(part.decode())
                self.server.mails.append((recipients, "".join(content)))
                self.say("250 ok")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")


class MailServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.mails = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"smtp://127.0.0.1:{self.server_address[1]}"
