"""Runs inside the sandbox: gives rights away, then executes one program. Standard library only, no package imports.

:mod:`diffusion_core.eval.sandbox` starts this file with a bare interpreter (``-I -S``). Three processes result:

* this one, which the parent can kill together with its session;
* where the kernel allows it, the first process of a new process namespace: when it ends, the kernel kills whatever
  the program left running, also what moved to another session;
* the program, in an interpreter of its own.

On Linux, user namespaces give a network without any device, a read-only file system, empty folders where the host's
services have their sockets, and a bounded memory file system as the working folder. Elsewhere, or where they are
forbidden, an audit hook in the program's interpreter refuses sockets and changes outside the folder: enough against
accidents, not against ill will. What was reached is written to the status pipe and ends up in the report.
"""

# ruff: noqa: PTH103, PTH112, PTH114, PTH116, PTH118, PTH120, PTH123, PTH208 - pathlib would be a third of the start-up time

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000
MNT_DETACH = 0x2
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 0x1
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38


# Where services listen on sockets in the file system (docker's, a database's, an agent's with the user's keys): neither
# a network namespace nor a read-only file system keeps a program from connecting to those.
SOCKET_FOLDERS = ("/run", "/var/run", "/tmp")  # noqa: S108 - hidden, not written to


class MountAttr(ctypes.Structure):
    """``struct mount_attr`` of mount_setattr(2)."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def enter_namespaces() -> bool:
    """New user, network, process, mount and IPC namespaces, with the same user id inside; False where forbidden."""
    if not sys.platform.startswith("linux"):
        return False
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC
    if _libc().unshare(flags) != 0:
        return False
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")
    return True


def hide_folder(root: str, keep: list[str]) -> bool:
    """An empty folder over ``root``; of all that was there only the folders ``keep`` are in it. False where refused."""
    libc = _libc()
    kept = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in keep}
    try:
        options = b"size=1m,mode=755"
        if libc.mount(b"tmpfs", os.fsencode(root), b"tmpfs", MS_NOSUID | MS_NODEV, options) != 0:
            return False
        for path, descriptor in kept.items():
            os.makedirs(path, exist_ok=True)
            source = f"/proc/self/fd/{descriptor}".encode()
            if libc.mount(source, os.fsencode(path), None, MS_BIND | MS_REC, None) != 0:
                libc.umount2(os.fsencode(root), MNT_DETACH)
                return False
    finally:
        for descriptor in kept.values():
            os.close(descriptor)
    return True


def hide_sockets(needed: list[str]) -> bool:
    """Hide ``SOCKET_FOLDERS`` but for the folders that the program needs; False where refused."""
    for name in SOCKET_FOLDERS:
        if os.path.islink(name) or not os.path.isdir(name):
            continue
        inside = sorted({path for path in needed if os.path.isdir(path) and f"{path}/".startswith(f"{name}/")})
        if name not in inside and not hide_folder(name, inside):
            return False
    return True


def needed_folders(spec: dict[str, Any]) -> list[str]:
    """The sandbox's own folder and those of the interpreter: they may lie in a folder that is hidden."""
    python = spec["python"]
    places = [os.path.dirname(os.path.dirname(path)) for path in (python, os.path.realpath(python))]
    return [os.path.dirname(spec["program"]), *places, sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)]


def protect_files(folder: str, size: int, needed: list[str]) -> bool:
    """The whole file system read-only, a memory file system of ``size`` bytes on ``folder``, no sockets of the host.

    False where the kernel refuses one of them.
    """
    libc = _libc()
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0 or not hide_sockets(needed):
        return False
    attributes = MountAttr(attr_set=MOUNT_ATTR_RDONLY)
    where = (ctypes.c_long(SYS_MOUNT_SETATTR), ctypes.c_int(AT_FDCWD), b"/", ctypes.c_uint(AT_RECURSIVE))
    if libc.syscall(*where, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes))) != 0:
        return False
    options = f"size={size},nr_inodes=10000,mode=700".encode()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", MS_NOSUID | MS_NODEV, options) != 0:
        return False
    # Shared memory of multiprocessing; a failure only means that the program cannot use it.
    libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", MS_NOSUID | MS_NODEV, options)
    return True


def limit_resources(spec: dict[str, Any], inherited_processes: int) -> None:
    """Limits that the kernel enforces for the program and everything that it starts."""
    cpu = int(spec["cpu_s"])
    wanted = {
        resource.RLIMIT_CPU: (cpu, cpu + 1),
        resource.RLIMIT_FSIZE: (spec["file_bytes"],) * 2,
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (256, 256),
        resource.RLIMIT_AS: (spec["memory_bytes"],) * 2,
    }
    if inherited_processes >= 0:
        wanted[resource.RLIMIT_NPROC] = (spec["num_processes"] + inherited_processes,) * 2
    for kind, limits in wanted.items():
        _, allowed = resource.getrlimit(kind)
        if allowed == resource.RLIM_INFINITY:
            allowed = max(limits)
        with contextlib.suppress(ValueError, OSError):  # macOS refuses some of them
            resource.setrlimit(kind, (min(limits[0], allowed), min(limits[1], allowed)))


def count_own_threads() -> int:
    """Threads of this user, which RLIMIT_NPROC counts outside a user namespace; -1 where unknown."""
    uid, total = os.getuid(), 0
    try:
        processes = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return -1
    for name in processes:
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == uid:
                total += len(os.listdir(f"/proc/{name}/task"))
    return total


def execute(spec: dict[str, Any], isolated: bool) -> NoReturn:
    """Become the program."""
    if isolated:
        libc = _libc()
        for capability in range(64):  # an id of 0 would get them all back with the exec
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    limit_resources(spec, 3 if isolated else count_own_threads())
    os.chdir(spec["work_folder"])
    # Not -I: it would also ignore PYTHONHASHSEED, and a verdict must not depend on the order of a set. The
    # environment holds nothing but our own variables, -P and -s do the rest.
    os.execve(  # noqa: S606 - no shell is the point
        spec["python"], [spec["python"], "-P", "-s", "-B", spec["program"]], spec["environment"]
    )


def report(descriptor: int, **fields: Any) -> None:
    """One JSON line to the parent."""
    os.write(descriptor, (json.dumps(fields) + "\n").encode())


def kill_descendants() -> None:
    """Kill what the program left running, also in other sessions: orphans become children of this process."""
    for _ in range(1000):
        try:
            with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as stream:
                children = [int(pid) for pid in stream.read().split()]
        except OSError:
            return
        if not children:
            return
        for pid in children:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def take_orphans() -> None:
    """Without a process namespace: adopt what the program orphans, so that it can be found and killed at the end."""

    def stop(number: int, _frame: Any) -> NoReturn:
        kill_descendants()
        os._exit(128 + number)

    _libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, stop)


def supervise(spec: dict[str, Any], isolated: bool, status: int) -> None:
    """Start the program, reap whatever ends, and report how the program ended."""
    linux = sys.platform.startswith("linux")
    if isolated:  # a process list of its own; refused inside some containers, which is harmless
        _libc().mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
    elif linux:
        take_orphans()
    program = os.fork()
    if program == 0:
        try:
            os.set_inheritable(status, False)
            execute(spec, isolated)
        except BaseException as error:  # the child must never return into the supervisor's code
            report(status, error=f"{type(error).__name__}: {error}")
            os._exit(126)
    while True:
        pid, code = os.wait()
        if pid == program:
            break
    if os.WIFSIGNALED(code):
        report(status, signal=os.WTERMSIG(code))
    else:
        report(status, exit=os.WEXITSTATUS(code))
    if linux and not isolated:
        kill_descendants()


def main() -> None:
    """Isolate, then supervise: in a new process namespace where there is one."""
    spec = json.loads(sys.argv[1])
    status = int(spec["status_fd"])
    linux = sys.platform.startswith("linux")
    if linux:
        _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    isolated = bool(spec["use_namespaces"]) and enter_namespaces()
    files = isolated and protect_files(spec["work_folder"], spec["file_bytes"], needed_folders(spec))
    if not files:
        source = os.path.join(os.path.dirname(__file__), "sandbox_guard.py")
        target = os.path.join(spec["guard_folder"], "sitecustomize.py")
        with open(source, "rb") as original, open(target, "wb") as copy:
            copy.write(original.read())
        spec["environment"]["PYTHONPATH"] = spec["guard_folder"]
    report(
        status,
        network="namespace" if isolated else "interpreter",
        processes="namespace" if isolated else "session",
        files="read-only" if files else "interpreter",
    )
    if not isolated:
        supervise(spec, False, status)
        return
    init = os.fork()
    if init == 0:
        _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        supervise(spec, True, status)
        os._exit(0)
    os.waitpid(init, 0)


if __name__ == "__main__":
    main()
