"""Drafts: guesses of the tokens to come, which one pass of the model checks all at once.

A reply's fixed text (brackets, keys, labels that come again) takes a good half of its tokens, and follows what came
before in nearly every reply. So the text after a few tokens is guessed to be what followed the same tokens before, in
any reply of this rollout. A wrong guess costs a little arithmetic and changes nothing: a token is drawn from the
model's own logits, by its own random number, whether or not it was guessed (speculative decoding, arXiv 2211.17192,
with the guesses of prompt lookup).
"""

from collections import defaultdict

LONGEST_CONTEXT = 4
"""Tokens before a guess that are compared with earlier ones; if those never came, fewer are."""
MIN_COUNT = 2
"""A context must have come so often."""
MIN_SHARE = 0.8
"""The guess must have followed its context in this share of cases. In JSON replies nine in ten are then right."""


class Drafter:
    """Count which token followed the last few, and guess by these counts."""

    def __init__(self) -> None:
        self._followers: defaultdict[tuple[int, ...], _Followers] = defaultdict(_Followers)

    def learn(self, tokens: list[int], start: int) -> None:
        """Count the tokens of a reply from its number `start` on; those before it were counted earlier."""
        for place in range(max(1, start), len(tokens)):
            for length in range(1, min(place, LONGEST_CONTEXT) + 1):
                self._followers[tuple(tokens[place - length : place])].add(tokens[place])

    def guess(self, tokens: list[int], most: int) -> list[int]:
        """Return up to `most` tokens that should follow `tokens`; none if there is no telling."""
        context = tokens[-LONGEST_CONTEXT:]
        guesses: list[int] = []
        while len(guesses) < most:
            token = self._guess_one(context)
            if token is None:
                break
            guesses.append(token)
            context = [*context[1 - LONGEST_CONTEXT :], token]
        return guesses

    def _guess_one(self, context: list[int]) -> int | None:
        """Return the likely token after a context, by its longest end that came before."""
        for start in range(len(context)):
            followers = self._followers.get(tuple(context[start:]))
            if followers is not None and followers.total >= MIN_COUNT:
                return followers.likely()
        return None


class _Followers:
    """How often which token followed one context."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total = 0

    def add(self, token: int) -> None:
        self.counts[token] = self.counts.get(token, 0) + 1
        self.total += 1

    def likely(self) -> int | None:
        """Return the token that nearly always followed, if there is one."""
        token = max(self.counts, key=self.counts.__getitem__)
        return token if self.counts[token] >= MIN_SHARE * self.total else None
