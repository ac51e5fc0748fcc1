"""Check what a pickle would build, before it is built: a few bytes can ask for gigabytes, or for hours.

Two things are bounded. The memo is an array, so its largest index must be below the number of opcodes. Containers are
shared by reference, so a tuple of two equal tuples, again and again, has 2^n parts in n opcodes; building it is quick,
but as the key of a dict all of its parts are hashed. So the parts of tuples and sets are counted as a hash would count
them. Lists and dicts cannot be keys, and are not counted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pickle import UnpicklingError
from pickletools import (
    TAKEN_FROM_ARGUMENT1,
    TAKEN_FROM_ARGUMENT4,
    TAKEN_FROM_ARGUMENT4U,
    TAKEN_FROM_ARGUMENT8U,
    UP_TO_NEWLINE,
    OpcodeInfo,
    markobject,
    opcodes,
)

MAX_DEPTH = 100
"""How deep tuples and sets may be nested; the C code that hashes them has no limit but the stack."""
MAX_PARTS_PER_OPCODE = 100
"""How many parts of tuples and sets may be hashed for each opcode. Data without sharing has as many as it is deep."""

_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in opcodes}
_LENGTHS = {
    TAKEN_FROM_ARGUMENT1: struct.Struct("<B"),
    TAKEN_FROM_ARGUMENT4: struct.Struct("<i"),
    TAKEN_FROM_ARGUMENT4U: struct.Struct("<I"),
    TAKEN_FROM_ARGUMENT8U: struct.Struct("<Q"),
}
"""How the length of an argument is written before it, by pickletools' marks."""
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_CALLS = {"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"}
_HASHABLE = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET", *_CALLS}
"""The opcodes whose result can be a key and has parts."""
_LISTS = {"EMPTY_LIST", "LIST"}
_MANY = 1 << 60
"""As many parts as nothing may have; more are not counted, because the numbers would themselves fill memory."""

_Opcode = tuple[OpcodeInfo, bytes]


def check_pickle(content: bytes) -> None:
    """Raise UnpicklingError for a pickle that asks for more memory or time than its size allows, or is broken."""
    num_opcodes = 0
    can_hash = False
    for opcode, argument in _iterate_opcodes(content):
        num_opcodes += 1
        can_hash = can_hash or opcode.name in _HASHABLE
        if opcode.name in _PUTS and _read_index(opcode, argument) > num_opcodes:
            raise UnpicklingError(f"it names place {_read_index(opcode, argument)} of a memo of {num_opcodes} at most")

    # Where nothing can be a key but texts and numbers, there is nothing more to count.
    if can_hash:
        _Machine(num_opcodes).run(content)


def _iterate_opcodes(content: bytes) -> Iterator[_Opcode]:
    """Yield the opcodes with the bytes of their arguments, up to STOP."""
    place = 0
    while True:
        opcode = _OPCODES.get(content[place : place + 1])
        if opcode is None:
            raise UnpicklingError(f"byte {place} is no opcode" if place < len(content) else "it ends without STOP")
        start = place + 1
        place = _find_end(content, start, opcode)
        yield opcode, content[start:place]
        if opcode.name == "STOP":
            return


def _find_end(content: bytes, start: int, opcode: OpcodeInfo) -> int:
    """Return where the argument of an opcode ends; UnpicklingError if that is behind the end of the file."""
    argument = opcode.arg
    if argument is None:
        return start
    if argument.n >= 0:
        end = start + argument.n
    elif argument.n == UP_TO_NEWLINE:
        # GLOBAL and INST have two lines.
        end = content.find(b"\n", start) + 1
        if end and opcode.name in ("GLOBAL", "INST"):
            end = content.find(b"\n", end) + 1
        end = end or len(content) + 1
    else:
        length = _LENGTHS[argument.n]
        if start + length.size > len(content):
            raise UnpicklingError("it is cut off")
        (num_bytes,) = length.unpack_from(content, start)
        end = start + length.size + max(0, num_bytes)
    if end > len(content):
        raise UnpicklingError("it is cut off")
    return end


def _read_index(opcode: OpcodeInfo, argument: bytes) -> int:
    """Return the place in the memo that an opcode names."""
    if opcode.name in ("PUT", "GET"):
        if len(argument) > 12:
            raise UnpicklingError("it names a place in the memo by more than 12 digits")
        return int(argument)
    return int.from_bytes(argument, "little")


class _Value:
    """A value on the stack: its parts, as a hash counts them, and how deep they are nested. 0 of a text or number."""

    __slots__ = ("depth", "is_list", "parts")

    def __init__(self, parts: int = 0, depth: int = 0, *, is_list: bool = False) -> None:
        self.parts = parts
        self.depth = depth
        self.is_list = is_list


_PLAIN = _Value()
_MARK = _Value()


def _select_hashed(opcode: OpcodeInfo, taken: Sequence[_Value]) -> Sequence[_Value]:
    """Return those of the values that an opcode takes which are hashed: keys, and what sets may be made of."""
    if opcode.name in ("SETITEM", "SETITEMS"):
        return taken[1::2]  # behind the dict
    if opcode.name == "DICT":
        return taken[::2]
    if opcode.name in ("ADDITEMS", "FROZENSET") or opcode.name in _CALLS:
        return taken
    return ()


class _Machine:
    """Run a pickle on values that are nothing but counts."""

    def __init__(self, num_opcodes: int) -> None:
        self._budget = MAX_PARTS_PER_OPCODE * num_opcodes
        self._stack: list[_Value] = []
        self._memo: dict[int, _Value] = {}

    def run(self, content: bytes) -> None:
        """Raise UnpicklingError if parts are nested too deep, or more than MAX_PARTS_PER_OPCODE allows are hashed."""
        for opcode, argument in _iterate_opcodes(content):
            if opcode.name in _PUTS:
                self._memo[_read_index(opcode, argument)] = self._top()
            elif opcode.name == "MEMOIZE":
                self._memo[len(self._memo)] = self._top()
            elif opcode.name in _GETS:
                self._stack.append(self._memo.get(_read_index(opcode, argument), _PLAIN))
            elif opcode.name == "DUP":
                self._stack.append(self._top())
            elif opcode.name == "MARK":
                self._stack.append(_MARK)
            else:
                self._run_other(opcode)

    def _run_other(self, opcode: OpcodeInfo) -> None:
        """Take from the stack what an opcode takes, and put there what it makes."""
        taken = self._take(opcode)
        self._charge(_select_hashed(opcode, taken))
        parts = min(sum(value.parts for value in taken), _MANY)
        depth = max((value.depth for value in taken), default=0)

        # A list is what a set is made of, so what it gets is counted as its own, also in the memo.
        if taken and taken[0].is_list and opcode.name in ("APPEND", "APPENDS"):
            taken[0].parts, taken[0].depth = parts, depth
            self._stack.append(taken[0])
        elif opcode.name in _LISTS:
            self._stack.append(_Value(parts, depth, is_list=True))
        elif opcode.name in _HASHABLE:
            self._stack.append(_Value(parts + 1, depth + 1))
        elif opcode.stack_after:
            self._stack.append(_PLAIN)

    def _charge(self, hashed: Sequence[_Value]) -> None:
        """Count what is hashed; UnpicklingError if it is too deep, or if nothing is left of the budget."""
        for value in hashed:
            self._budget -= value.parts
            if self._budget < 0 or value.depth > MAX_DEPTH:
                raise UnpicklingError("its tuples and sets are nested so that hashing them would take for ever")

    def _take(self, opcode: OpcodeInfo) -> list[_Value]:
        """Take the values of an opcode from the stack, the first that was put there first, without the mark."""
        num_fixed = len(opcode.stack_before)
        values: list[_Value] = []
        if markobject in opcode.stack_before:
            # All down to the mark, which stands at this place among the opcode's values.
            while (value := self._pop()) is not _MARK:
                values.append(value)
            num_fixed = opcode.stack_before.index(markobject)
        for _ in range(num_fixed):
            values.append(self._pop())
        return values[::-1]

    def _top(self) -> _Value:
        if not self._stack:
            raise UnpicklingError("it takes from an empty stack")
        return self._stack[-1]

    def _pop(self) -> _Value:
        value = self._top()
        self._stack.pop()
        return value
