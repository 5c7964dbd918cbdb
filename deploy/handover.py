"""Make a user the owner of what root owns in a container's volumes.

The entrypoint runs it, as root. It imports only what loads quickly:

    handover.py UID DIRECTORY PATH...

DIRECTORY is made where it is missing, with its parents, and becomes the user's. DIRECTORY and each
PATH are handed over, with all that is in them on the same file system; of a PATH that does not
exist, its parent directory is, without what is in it.

Only directories are handed over, and files that have one name: another name may be anywhere. Files
of other owners stay theirs; so does all on the container's own file system, and what can't be
changed, in a read-only mount for example.

A process of another container that may write to a volume may do so at this moment: a name there may
be that of /etc/shadow a microsecond later. So each name is looked up once, in a directory that is
held open, and no link is followed. What was found is held open, and that is examined and handed
over, whatever its name stands for by then. Links are followed only on the way to a PATH, in
directories where only root can have put them.
"""

import errno
import os
import stat
import sys

MOST_LINKS = 40
DEEPEST = 64
"""Nested directories; each takes descriptors."""


class Giver:
    """Hands over to `user` what is `root`'s. The caller closes a descriptor that is returned."""

    def __init__(self, user: int, root: int = 0) -> None:
        self.user = user
        self.root = root
        self.own_file_system = os.stat("/").st_dev

    def make(self, path: str) -> None:
        """Make a directory that does not exist, and hand it over. Raises OSError."""
        try:
            os.close(self.find(path))
        except FileNotFoundError:
            made = self.find(path, make=True)
            self.give(made)
            os.close(made)

    def hand_over(self, path: str) -> None:
        """Hand over what is at `path`, or else its parent directory alone. Raises OSError."""
        try:
            found, depth = self.find(path), DEEPEST
        except FileNotFoundError:
            found, depth = self.find(os.path.dirname(path)), 0
        device = os.fstat(found).st_dev
        if device != self.own_file_system:
            self.give_all(found, device, depth)
        os.close(found)

    def find(self, path: str, *, make: bool = False) -> int:
        """Open what is at an absolute path; `make` missing directories. Raises OSError."""
        for _ in range(MOST_LINKS):
            names = [name for name in os.path.normpath(path).split("/") if name]
            held = self.hold("/")
            is_roots = True
            for index, name in enumerate(names):
                directory = held
                is_roots = is_roots and self.only_root_changes(directory)
                try:
                    held = self.hold(name, directory)
                except FileNotFoundError:
                    if not make:
                        raise
                    os.mkdir(name, dir_fd=directory)
                    held = self.hold(name, directory)
                finally:
                    os.close(directory)
                if not stat.S_ISLNK(os.fstat(held).st_mode):
                    continue
                target = os.readlink("", dir_fd=held)
                os.close(held)
                if not is_roots:
                    raise OSError(errno.ELOOP, "a link that may be anybody's", path)
                path = os.path.join("/", *names[:index], target, *names[index + 1 :])
                break
            else:
                return held
        raise OSError(errno.ELOOP, "links without end", path)

    def hold(self, name: str, directory: int | None = None) -> int:
        """Open what has this name, without access, and a link itself. Raises OSError."""
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)

    def only_root_changes(self, directory: int) -> bool:
        """Return whether only root can change the names in a directory."""
        status = os.fstat(directory)
        return status.st_uid == self.root and not status.st_mode & 0o022

    def give_all(self, held: int, device: int, depth: int) -> None:
        """Hand over what is open, after its content: the user may close a directory of its own."""
        status = os.fstat(held)
        if depth and stat.S_ISDIR(status.st_mode) and status.st_dev == device:
            try:
                self.give_content(held, device, depth - 1)
            except OSError:
                pass
        self.give(held)

    def give_content(self, directory: int, device: int, depth: int) -> None:
        """Hand over the content of a directory. Raises OSError where it can't be read."""
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            with os.scandir(readable) as entries:
                for entry in entries:
                    try:
                        held = self.hold(entry.name, directory)
                    except OSError:
                        continue  # gone in the meantime
                    self.give_all(held, device, depth)
                    os.close(held)
        finally:
            os.close(readable)

    def give(self, held: int) -> None:
        """Hand over what is open, without its content, if it is of the kinds named above."""
        status = os.fstat(held)
        is_file = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        if status.st_uid == self.root and (is_file or stat.S_ISDIR(status.st_mode)):
            try:
                self.chown(held)
            except OSError:
                pass

    def chown(self, held: int) -> None:
        """Make the user the owner of what is open, and keep its group. Raises OSError."""
        # fchown(2) takes no descriptor of this kind.
        os.chown(f"/proc/self/fd/{held}", self.user, -1)


def main(user: str, directory: str, *paths: str) -> None:
    """Hand over all that can be."""
    giver = Giver(int(user))
    steps = [(giver.make, directory), *((giver.hand_over, path) for path in (directory, *paths))]
    for step, path in steps:
        try:
            step(os.path.abspath(path))
        except OSError:
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
