"""Real servers on 127.0.0.1 for the tests of push and pull: SFTP and ssh (asyncssh), S3 (moto), and rsync's daemon."""

import asyncio
import contextlib
import os
import shlex
import socket
import subprocess
import threading
import time
from pathlib import Path


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class SSHServer:
    """An ssh server with SFTP that also runs rsync; one user key is allowed in.

    `root` is what SFTP clients see as `/`; `written` counts the bytes that they wrote, by file.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        import asyncssh

        self.folder, self.root, self.written = folder, root, {}
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.user_key = asyncssh.generate_private_key("ssh-ed25519")
        (folder / ".ssh").mkdir(parents=True)
        self.user_key.write_private_key(folder / ".ssh" / "id_ed25519")
        self.user_key.write_public_key(folder / ".ssh" / "id_ed25519.pub")
        self.user_key.write_public_key(folder / "authorized_keys")
        (folder / ".ssh" / "id_ed25519").chmod(0o600)

    def __enter__(self) -> "SSHServer":
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.server = asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(30)
        self.port = self.server.sockets[0].getsockname()[1]
        public = self.host_key.export_public_key().decode().strip()
        (self.folder / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}\n")
        return self

    def __exit__(self, *_) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _start(self):
        import asyncssh

        outer = self
        self.connections = []

        class Tracked(asyncssh.SSHServer):
            def connection_made(self, conn) -> None:
                outer.connections.append(conn)

        class Counting(asyncssh.SFTPServer):
            def __init__(self, chan) -> None:
                super().__init__(chan, chroot=os.fsencode(outer.root))

            def write(self, file, offset, data):
                outer.written[file.name] = outer.written.get(file.name, 0) + len(data)
                return super().write(file, offset, data)

        return await asyncssh.create_server(
            Tracked,
            "127.0.0.1",
            0,
            server_host_keys=[self.host_key],
            authorized_client_keys=str(self.folder / "authorized_keys"),
            sftp_factory=Counting,
            process_factory=_run_rsync,
            encoding=None,
        )

    async def _stop(self):
        self.server.close()
        for connection in self.connections:
            connection.abort()  # clients that are still there leave a socket open otherwise
        await asyncio.gather(*(connection.wait_closed() for connection in self.connections), return_exceptions=True)
        await self.server.wait_closed()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    @property
    def ssh_command(self) -> str:
        """What OpenSSH must be told to reach it; it ignores $HOME."""
        keys = self.folder / ".ssh"
        return (
            f"ssh -F none -p {self.port} -i {keys / 'id_ed25519'} -o IdentitiesOnly=yes -o BatchMode=yes "
            f"-o UserKnownHostsFile={keys / 'known_hosts'} -o GlobalKnownHostsFile=none"
        )


async def _run_rsync(process):
    words = shlex.split(process.command or "")
    assert words[:2] == ["rsync", "--server"], words
    child = await asyncio.create_subprocess_exec(
        *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    await process.redirect(child.stdin, child.stdout, child.stderr)
    process.exit(await child.wait())
    await process.wait_closed()


@contextlib.contextmanager
def s3_server():
    """A real S3 server; gives its URL."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def rsync_daemon(folder: Path, root: Path):
    """A daemon of rsync whose module `cache` is `root`; gives its port."""
    port = free_port()
    config = folder / "rsyncd.conf"
    own = f"uid = {os.getuid()}\ngid = {os.getgid()}\n" if os.getuid() == 0 else ""
    config.write_text(
        f"use chroot = no\nport = {port}\naddress = 127.0.0.1\n{own}"
        f"[cache]\npath = {root}\nread only = no\n[closed]\npath = {root}\nread only = yes\n"
    )
    daemon = subprocess.Popen(
        ["rsync", "--daemon", "--no-detach", f"--config={config}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port
    finally:
        daemon.terminate()
        daemon.wait()
