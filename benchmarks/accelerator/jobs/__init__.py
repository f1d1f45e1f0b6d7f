"""The jobs, in order of what they tell for each minute."""

from __future__ import annotations

from typing import Any

from benchmarks.accelerator.job import DETERMINISTIC, Job

_HERE = "benchmarks.accelerator.jobs"


def _correct(name: str, about: str, seconds: float) -> Job:
    run = f"{_HERE}.correct:{name}"
    return Job(name, "correct", about, run, seconds, gigabytes=4.0, flags=DETERMINISTIC)


def _job(name: str, group: str, run: str, seconds: float, *, about: str, **options: Any) -> Job:
    return Job(name, group, about, f"{_HERE}.{run}", seconds, **options)


JOBS: tuple[Job, ...] = (
    _correct("oracles", "kernels against float64 on the CPU, by precision of products", 45),
    _correct(
        "same_bits",
        "training twice to the bit, and no transfer in an epoch but of batches and metrics",
        20,
    ),
    _correct("lanes", "seeds at once against in turn, to rounding", 15),
    _correct("logs", "a log of training verified on the CPU, and back", 45),
    Job(
        "peaks",
        "hardware",
        "matrix products and a copy: what the card can do",
        f"{_HERE}.peaks:run",
        15,
        data=(),
    ),
    _job(
        "resnet18",
        "hardware",
        "training:resnet18",
        75,
        about="ResNet-18 in bfloat16: ms a step, utilisation, 160 epochs",
    ),
    _job(
        "speedrun",
        "hardware",
        "training:speedrun",
        75,
        about="the speed-run network: accuracy, and seconds to it",
    ),
    _job("lenets", "hardware", "training:lenets", 45, about="64 LeNets at once against in turn"),
    Job(
        "kernels",
        "kernels",
        "curvature and per-example gradients against PyTorch",
        f"{_HERE}.kernels:run",
        60,
        data=(),
    ),
    Job(
        "ntk",
        "kernels",
        "the NTK, stored and as an operator, against PyTorch",
        f"{_HERE}.kernels:ntk",
        40,
        data=(),
    ),
    Job(
        "auditors",
        "kernels",
        "the differentiable SVM and its folds, against scikit-learn",
        f"{_HERE}.kernels:auditors",
        30,
        data=(),
    ),
    _job(
        "bfloat16",
        "correct",
        "correct:bfloat16",
        60,
        about="the accuracy that bfloat16 costs, over three seeds",
    ),
    _job(
        "sg_unlearn",
        "sg_unlearn",
        "papers:sg_unlearn",
        240,
        gigabytes=30.0,
        about="Di et al. 2024: ResNet-18, three seeds, all methods, random forgetting",
    ),
    Job(
        "tgda",
        "tgda",
        "Lu et al. 2022: whole games against NN and CNN on MNIST, three seeds in lanes",
        f"{_HERE}.papers:tgda",
        150,
        data=("mnist",),
    ),
    _job(
        "tgda_colour",
        "tgda",
        "papers:tgda_colour",
        150,
        about="Lu et al. 2022: the whole game against the CNN on CIFAR-10, likewise",
    ),
    *(
        _job(
            f"poison_{name}",
            "poison_unlearning",
            f"papers:{name}",
            seconds,
            gigabytes=30.0,
            about=f"Pawelczyk et al. 2024: ResNet-18, {name} poisons, Retrain and seven methods, "
            "two seeds",
        )
        for name, seconds in (("gaussian", 120), ("targeted", 170), ("indiscriminate", 170))
    ),
    Job(
        "poison_language",
        "poison_unlearning",
        "Pawelczyk et al. 2024: GPT-2 small from a random start, a trigger, Retrain and seven "
        "methods",
        f"{_HERE}.language:language",
        240,
        rehearsal=30.0,
        gigabytes=30.0,
        data=(),
    ),
    _job(
        "ntk_scrub",
        "ntk_scrub",
        "ntk_scrub:run",
        240,
        gigabytes=22.0,
        about="Golatkar et al. 2020b: the NTK scrub of all 50,000 images and ten outputs",
    ),
)
"""A job fits a run where its estimate does; the whole list is for several."""
