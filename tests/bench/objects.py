# SPDX-License-Identifier: Apache-2.0
"""An S3 server of our own on loopback, for those that read only from one: s3rver, which `npm install --global s3rver` installs."""
import http.client, os, shutil, socket, subprocess, time, urllib.parse

PROGRAM = "s3rver"
KEYS = "S3RVER:S3RVER"   # the ones it knows


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, where):
        self.where, self.port, self.buckets = where, free_port(), 0
        os.makedirs(where)
        self.keys = os.path.join(where, "keys")
        with open(os.open(self.keys, os.O_CREAT | os.O_WRONLY, 0o600), "w") as f:
            f.write(KEYS + "\n")
        self.child = subprocess.Popen([PROGRAM, "-d", os.path.join(where, "objects"), "-a", "127.0.0.1", "-p", str(self.port), "--silent"],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.child.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise RuntimeError(PROGRAM + " does not answer")
                time.sleep(0.05)

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port

    def upload(self, folder):
        """A bucket with the files of @folder: its name."""
        self.buckets += 1
        bucket = "data%d" % self.buckets
        link = http.client.HTTPConnection("127.0.0.1", self.port)
        self._put(link, "/" + bucket, b"")
        for parent, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(parent, name)
                with open(path, "rb") as f:
                    self._put(link, "/%s/%s" % (bucket, urllib.parse.quote(os.path.relpath(path, folder))), f)
        link.close()
        return bucket

    @staticmethod
    def _put(link, path, body):
        link.request("PUT", path, body, {} if isinstance(body, bytes) else {"Content-Length": str(os.fstat(body.fileno()).st_size)})
        answer = link.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError("%s: PUT %s: %d" % (PROGRAM, path, answer.status))

    def close(self):
        self.child.terminate()
        self.child.wait()
        shutil.rmtree(self.where, ignore_errors=True)
