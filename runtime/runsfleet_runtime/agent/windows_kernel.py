"""Windows' kernel, by ``ctypes``: job objects, which hold process trees, and the memory.

A job object holds a process and everything that it starts. It is closed when the agent ends,
however it ends, and ends all that it holds: no runner outlives its agent. Names and numbers are
those of Microsoft's ``winnt.h`` and ``sysinfoapi.h``.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any, ClassVar

from runsfleet_runtime.telemetry.log import get_logger

JOB_OBJECT_EXTENDED_LIMIT_INFORMATION = 9
JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE = 0x2000
PROCESS_TERMINATE = 0x0001
PROCESS_SET_QUOTA = 0x0100
EXIT_CODE = 1

_log = get_logger("agent.windows")

_DWORD, _BOOL, _HANDLE = ctypes.c_uint32, ctypes.c_int32, ctypes.c_void_p


class BasicLimits(ctypes.Structure):
    """``JOBOBJECT_BASIC_LIMIT_INFORMATION``."""

    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", _DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", _DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", _DWORD),
        ("SchedulingClass", _DWORD),
    ]


class ExtendedLimits(ctypes.Structure):
    """``JOBOBJECT_EXTENDED_LIMIT_INFORMATION``."""

    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("BasicLimitInformation", BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    ]


class MemoryStatus(ctypes.Structure):
    """``MEMORYSTATUSEX``."""

    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("dwLength", _DWORD),
        ("dwMemoryLoad", _DWORD),
        ("ullTotalPhys", ctypes.c_uint64),
        ("ullAvailPhys", ctypes.c_uint64),
        ("ullTotalPageFile", ctypes.c_uint64),
        ("ullAvailPageFile", ctypes.c_uint64),
        ("ullTotalVirtual", ctypes.c_uint64),
        ("ullAvailVirtual", ctypes.c_uint64),
        ("ullAvailExtendedVirtual", ctypes.c_uint64),
    ]


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "CreateJobObjectW": (_HANDLE, [ctypes.c_void_p, ctypes.c_wchar_p]),
    "SetInformationJobObject": (_BOOL, [_HANDLE, ctypes.c_int, ctypes.c_void_p, _DWORD]),
    "OpenProcess": (_HANDLE, [_DWORD, _BOOL, _DWORD]),
    "AssignProcessToJobObject": (_BOOL, [_HANDLE, _HANDLE]),
    "TerminateJobObject": (_BOOL, [_HANDLE, ctypes.c_uint]),
    "CloseHandle": (_BOOL, [_HANDLE]),
    "GlobalMemoryStatusEx": (_BOOL, [ctypes.c_void_p]),
}


@lru_cache(maxsize=1)
def kernel32() -> Any:
    """Return ``kernel32.dll`` with its functions described; raises where there is none."""
    library = getattr(ctypes, "WinDLL")("kernel32", use_last_error=True)  # noqa: B009  see below
    # by its name, because other systems do not have it and their type checkers say so
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class JobObjects:
    """Holds each process tree in a job object. Satisfies ``HoldsTrees``.

    Args:
        kernel: Windows' kernel; found when it is first used.
    """

    def __init__(self, kernel: Any = None) -> None:
        self._kernel = kernel
        self._jobs: dict[int, Any] = {}

    def hold(self, pid: int) -> bool:
        """Hold a process and what it starts from now on; False when Windows refused."""
        job = process = None
        try:
            kernel = self._library()
            job = kernel.CreateJobObjectW(None, None)
            limits = ExtendedLimits()
            limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
            process = kernel.OpenProcess(PROCESS_TERMINATE | PROCESS_SET_QUOTA, 0, pid)
            held = bool(
                job
                and process
                and kernel.SetInformationJobObject(
                    job,
                    JOB_OBJECT_EXTENDED_LIMIT_INFORMATION,
                    ctypes.byref(limits),
                    ctypes.sizeof(limits),
                )
                and kernel.AssignProcessToJobObject(job, process)
            )
        except (OSError, AttributeError) as error:
            _log.warning("no job object", extra={"error": str(error)})
            return False
        if process:
            kernel.CloseHandle(process)
        if held:
            self._jobs[pid] = job
        elif job:
            kernel.CloseHandle(job)
        return held

    def end(self, pid: int) -> bool:
        """End all that is held of a process; False when nothing was, or Windows refused."""
        job = self._jobs.pop(pid, None)
        if job is None:
            return False
        kernel = self._library()
        ended = bool(kernel.TerminateJobObject(job, EXIT_CODE))
        # closing ends what is left too, by the limit above
        return bool(kernel.CloseHandle(job)) or ended

    def _library(self) -> Any:
        if self._kernel is None:
            self._kernel = kernel32()
        return self._kernel


def available_memory(kernel: Any = None) -> int | None:
    """Return the bytes of physical memory that are available; ``None`` when unknown.

    Args:
        kernel: Windows' kernel; the machine's by default.
    """
    status = MemoryStatus(dwLength=ctypes.sizeof(MemoryStatus))
    try:
        library = kernel if kernel is not None else kernel32()
        known = library.GlobalMemoryStatusEx(ctypes.byref(status))
    except (OSError, AttributeError):
        return None
    return int(status.ullAvailPhys) if known else None
