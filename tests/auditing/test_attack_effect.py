"""What counts as an attack without effect."""

import pytest

from unlearnkit.auditing import lacks_effect


def gaussian(p_value, low):
    return {
        "gaussian_gus": 0.1, "gaussian_gus_se": 0.2, "gaussian_p_value": p_value,
        "gaussian_tpr_two_sided_low": low, "accuracy_drop": 0.5, "accuracy_drop_se": 0.01,
    }  # fmt: skip


def targeted(success):
    return {"targets_targeted_success": success, "accuracy_drop": 0.5, "accuracy_drop_se": 0.01}


def trigger(success, low):
    return {"trigger_success": success, "trigger_success_low": low}


def dropped(drop, error):
    return {"accuracy_drop": drop, "accuracy_drop_se": error}


@pytest.mark.parametrize(
    ("victim", "reference", "said"),
    [
        (gaussian(0.04, 0.0), gaussian(0.5, 0.0), None),
        (gaussian(0.06, 0.02), gaussian(0.5, 0.0), None),  # given away one by one
        (gaussian(0.06, 0.005), gaussian(0.5, 0.0), r"the noise does not show .* GUS \+0.100"),
        (targeted(0.5), targeted(0.0), None),
        (targeted(0.5), targeted(0.5), "50 % of its targets are taken .*, 50 % without"),
        (trigger(0.5, 0.3), trigger(0.2, 0.1), None),
        (trigger(0.5, 0.3), trigger(0.4, 0.2), "its trigger works on 50 %, 40 % without"),
        (dropped(0.02, 0.01), dropped(0.0, 0.01), None),
        (dropped(0.016, 0.01), dropped(0.0, 0.01), r"is \+1.6 ± 1.0 points below"),
    ],
)
def test_an_effect_is_more_than_chance_and_more_than_without_poisons(victim, reference, said):
    found = lacks_effect(victim, reference)
    if said is None:
        assert found is None
    else:
        with pytest.raises(ValueError, match=said):
            raise ValueError(found)
