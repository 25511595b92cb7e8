"""DSPy's arm of ``accuracy.py``: its optimizers on the same model, rows and budget. Run in an environment with DSPy.

    python benchmarks/learn/accuracy_dspy.py ADDRESS KEY MODEL FOLDER TASK SEED CALLS

ADDRESS serves the model to OpenAI clients. FOLDER holds ``train.jsonl``, ``val.jsonl`` and ``test.jsonl``. It prints a
JSON object: by optimizer the predictions for the test rows, and the calls it made. Its JSON adapter holds the model to
a schema, which the chat format does not: half of the chat replies of a small model can't be parsed.
"""

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import dspy

BANKING = (
    "card_arrival",
    "lost_or_stolen_card",
    "exchange_rate",
    "pending_top_up",
    "change_pin",
    "Refund_not_showing_up",
    "country_support",
    "terminate_account",
)
Banking = Literal[BANKING]  # type: ignore[valid-type]  # the names above


class Sst2(dspy.Signature):
    """Say whether a sentence of a film review is positive or negative."""

    text: str = dspy.InputField(desc="a sentence of a film review")
    label: Literal["positive", "negative"] = dspy.OutputField(desc="what the sentence says about the film")


class Banking8(dspy.Signature):
    """Name what a customer of a bank wants."""

    text: str = dspy.InputField(desc="what the customer wrote")
    label: Banking = dspy.OutputField(desc="what it is about")


class Slots(dspy.Signature):
    """Find what a restaurant's guest says about a booking."""

    text: str = dspy.InputField(desc="what the guest wrote")
    people: str | None = dspy.OutputField(desc="for how many people")
    date: str | None = dspy.OutputField(desc="the day")
    time: str | None = dspy.OutputField(desc="the time")
    first_name: str | None = dspy.OutputField(desc="the guest's first name")
    last_name: str | None = dspy.OutputField(desc="the guest's last name")


TASKS = {"sst2": Sst2, "banking8": Banking8, "slots": Slots}


class OverBudget(Exception):
    """So many calls were made."""


class Counted(dspy.LM):
    """The model, held to a schema, and to so many calls."""

    left = sys.maxsize
    made = 0
    _lock = threading.Lock()

    @property
    def supports_response_schema(self) -> bool:
        return True

    @property
    def supported_params(self) -> set[str]:
        return {"response_format", "temperature", "max_tokens", "seed", "stop"}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with Counted._lock:
            if Counted.left <= 0:
                raise OverBudget
            Counted.left -= 1
            Counted.made += 1
        answer = super().forward(*args, **kwargs)
        if getattr(answer, "cache_hit", False):  # no request reached the model
            with Counted._lock:
                Counted.left += 1
                Counted.made -= 1
        return answer


def rows(path: Path, outputs: list[str]) -> list[Any]:
    """Rows as DSPy's examples."""
    made = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        dspy.Example(**{"text": one["text"], **{name: one.get(name) for name in outputs}}).with_inputs("text")
        for one in made
    ]


def main() -> None:
    """Each optimizer, then its program on the test rows."""
    address, key, model, folder, task, seed, calls = sys.argv[1:]
    signature = TASKS[task]
    outputs = list(signature.output_fields)
    train, val, test = (rows(Path(folder) / f"{name}.jsonl", outputs) for name in ("train", "val", "test"))
    lm = Counted(f"openai/{model}", api_base=f"{address}/v1", api_key=key, temperature=0.0, max_tokens=200, cache=True)
    dspy.configure(lm=lm, adapter=dspy.JSONAdapter())
    print(json.dumps(arms(signature, outputs, train, val, test, lm, int(seed), int(calls))))


def arms(
    signature: Any,
    outputs: list[str],
    train: list[Any],
    val: list[Any],
    test: list[Any],
    lm: Any,
    seed: int,
    calls: int,
) -> dict[str, Any]:
    """By optimizer: the predictions, how many calls it made, and what went wrong, if anything did."""

    def metric(example: Any, prediction: Any, *_: Any) -> float:
        return float(all(same(example.get(name), getattr(prediction, name, None)) for name in outputs))

    def told(example: Any, prediction: Any, *_: Any) -> Any:
        wrong = [name for name in outputs if not same(example.get(name), getattr(prediction, name, None))]
        said = f"wrong: {', '.join(f'{name} is {example.get(name)!r}' for name in wrong)}" if wrong else "right"
        return dspy.Prediction(score=float(not wrong), feedback=said)

    searches: Mapping[str, Callable[[Any], Any]] = {
        "none": lambda student: student,
        "BootstrapFewShot": lambda student: dspy.BootstrapFewShot(metric=metric).compile(student, trainset=train),
        "BootstrapFewShotWithRandomSearch": lambda student: dspy.BootstrapFewShotWithRandomSearch(
            metric=metric, num_candidate_programs=max(1, (calls - 150) // len(val)), num_threads=2
        ).compile(student, trainset=train, valset=val),
        "MIPROv2": lambda student: dspy.MIPROv2(
            metric=metric, auto=None, num_candidates=4, seed=seed, num_threads=2
        ).compile(student, trainset=train, valset=val, num_trials=max(2, (calls - 200) // len(val)), minibatch=False),
        "GEPA": lambda student: dspy.GEPA(
            metric=told, max_metric_calls=calls // 2, reflection_lm=lm, seed=seed, num_threads=2
        ).compile(student, trainset=train, valset=val),
    }
    found: dict[str, Any] = {}
    for name, search in searches.items():
        Counted.left, Counted.made, problem = calls, 0, None
        program = dspy.Predict(signature)
        with contextlib.redirect_stdout(sys.stderr):
            try:
                program = search(program)
            except Exception as error:  # noqa: BLE001 - it counts as the program without it, and is reported
                problem = f"{type(error).__name__}: {error}"[:200]
            used, Counted.left = Counted.made, sys.maxsize
            found[name] = {"calls": used, "problem": problem, "predictions": predicted(program, test, outputs)}
    return found


def predicted(program: Any, test: list[Any], outputs: list[str]) -> list[Any]:
    """The program's answers; None for one that could not be parsed."""
    made: list[Any] = []
    for example in test:
        try:
            answer = program(text=example.text)
            made.append({name: getattr(answer, name, None) for name in outputs})
        except Exception:  # noqa: BLE001 - a reply without the fields is a wrong answer
            made.append(None)
    return made


def same(wanted: Any, got: Any) -> bool:
    """Blanks alike, texts but for case and spaces."""
    tidy = [" ".join(str(one).casefold().split()) if one not in (None, "", "none") else "" for one in (wanted, got)]
    return tidy[0] == tidy[1]


if __name__ == "__main__":
    main()
