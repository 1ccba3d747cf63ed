"""How a run works: what moves none of its numbers beyond rounding, and so is no field of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, fields

from focaldet.errors import UsageError

FLAGS = {"recompute": "activation-checkpointing"}
"""Those of the command line that are not called as their attribute."""


@dataclass(frozen=True)
class Options:
    """The flags of `focaldet train`.

    Attributes:
        workers: processes that read pictures beside each that trains.
        max_minutes: end after this time; the learning rate then follows the clock, so that no two such runs are equal
            to the bit.
        save_every: minutes between checkpoints within an epoch; 0 saves after each step, None only after epochs.
        eval_every: epochs between validations; the last epoch is always followed by one.
        patience: end after so many validations in a row without a better AP; None: never.
        compile: run the network through torch.compile.
        recompute: keep only some activations and compute the others again in the backward pass (activation
            checkpointing): less memory, a third more time.
        channels_last: lay maps out as (B, H, W, C) in memory.
        tensorboard: write the figures for TensorBoard too.
        profile: measure where a step's time goes.
    """

    workers: int = 0
    max_minutes: float | None = None
    save_every: float | None = None
    eval_every: int = 1
    patience: int | None = None
    compile: bool = False
    recompute: bool = False
    channels_last: bool = True
    tensorboard: bool = False
    profile: bool = False

    def __post_init__(self) -> None:
        least = {"workers": 0, "save_every": 0, "eval_every": 1, "patience": 1}
        for name, limit in least.items():
            value = getattr(self, name)
            if value is not None and value < limit:
                raise UsageError(f"{name}={value} must be at least {limit}")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise UsageError(f"max_minutes={self.max_minutes} must be above 0")

    def words(self) -> list[str]:
        """Return the flags of the command line that ask for the same.

        >>> Options(workers=2, channels_last=False, profile=True).words()
        ['--workers', '2', '--no-channels-last', '--profile']
        """
        words: list[str] = []
        for item in fields(self):
            value, flag = getattr(self, item.name), FLAGS.get(item.name, item.name.replace("_", "-"))
            if value == item.default:
                continue
            words.append(f"--no-{flag}" if value is False else f"--{flag}")
            if not isinstance(value, bool):
                words.append(str(value))
        return words
