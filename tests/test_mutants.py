"""The planted mistakes are those that one expects, and the list of modules names files that are there."""

from __future__ import annotations

from pathlib import Path

from tests import mutants
from tests.support.mutation import mutants as planted

TEXT = '''"""A docstring."""
from __future__ import annotations

def is_old(age: int, limit: int = 18) -> bool:
    """Another."""
    if age < limit and age is not None:
        raise ValueError("a text for people")
    return True
'''


def test_each_operator_value_and_statement_is_changed_and_no_text_type_or_import(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(TEXT)
    assert [mutant.name for mutant in planted(module)] == [
        "is_old: 18 -> 19",
        "is_old: age < limit and age is not None -> age < limit",
        "is_old: age < limit and age is not None -> age is not None",
        "is_old: age < limit -> age <= limit",
        "is_old: age is not None -> age is None",
        "is_old: raise ValueError('a text for people') -> pass",
        "is_old: return True -> return None",
        "is_old: True -> False",
    ]


def test_a_mutant_is_the_module_with_its_one_mistake(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(TEXT)
    codes = {mutant.name: mutant.code for mutant in planted(module)}
    names: dict[str, object] = {}
    exec(codes["is_old: True -> False"], names)
    assert callable(is_old := names["is_old"])
    assert is_old(18) is False


def test_every_module_of_the_list_and_each_of_its_tests_is_there() -> None:
    listed = mutants.modules()
    assert {"decision", "tokens", "cache.entries", "management.keys"} <= listed.keys()
    for module in listed.values():
        assert module.path.exists(), module.name
        assert all((mutants.ROOT / test).exists() for test in module.tests), module.name
