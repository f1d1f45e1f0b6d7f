"""Methods made from their classes, with settings that suit a small problem."""

import dataclasses


def trial_of(kind, otherwise):
    """Returns what a class says of itself, see `unlearnkit.trials`, or else `otherwise`."""
    return getattr(kind, "trial", otherwise)


def made(kind, by_name, own):
    """Returns the method: fields of a name in `by_name` take its value, those of `own` theirs."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in by_name.items() if name in names} | dict(own))


def required_of(kind, own):
    """Returns the settings in `own` that a class has no default for."""
    required = (
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )
    return {name: own[name] for name in required}
