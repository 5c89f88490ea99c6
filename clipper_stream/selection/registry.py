"""Selection policies by name, as a manifest names them."""

from collections.abc import Callable, Mapping
from typing import Any

from clipper_stream.names import make_named
from clipper_stream.selection.policies.cascade import Cascade
from clipper_stream.selection.policies.epsilon_greedy import EpsilonGreedy
from clipper_stream.selection.policies.exp3 import Exp3
from clipper_stream.selection.policies.exp4 import Exp4, Exp4Clipper
from clipper_stream.selection.policies.lin_ucb import LinUcb
from clipper_stream.selection.policies.operator_choice import Single, Split
from clipper_stream.selection.policies.thompson import Thompson
from clipper_stream.selection.policies.tsallis_inf import TsallisInf
from clipper_stream.selection.policy import SelectionPolicy

POLICIES: Mapping[str, Callable[..., SelectionPolicy]] = {
    policy.name: policy
    for policy in (Single, Split, Cascade, EpsilonGreedy, Exp3, Exp4, Exp4Clipper, LinUcb, Thompson, TsallisInf)
}
"""Every policy by its name. A new one is added here, and the laws in tests/laws then hold it."""
SETTLED = ("single", "split")
"""Those that learn nothing: whom they may ask is known beforehand."""


def make_policy(name: str, parameters: Mapping[str, Any] | None = None) -> SelectionPolicy:
    """Make the policy of this name.

    Args:
        name: One of `POLICIES`.
        parameters: Its parameters, which its class documents; what is left out has its default.

    >>> make_policy("exp3", {"eta": 0.2})
    Exp3(eta=0.2, exploration=0.05, half_life=None, half_life_s=None)

    Raises:
        UnknownName: there is no such policy.
        InvalidSetting: there is no such parameter, or its value is outside its bounds.
    """
    return make_named("policy", POLICIES, name, parameters or {})
