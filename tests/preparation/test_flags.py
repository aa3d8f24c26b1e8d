"""Flags of quality control: sentence, code and advice."""

import json
import pickle

import pytest

from maediff.preparation.quality.flags import ADVICE, Flag, describe_flags, record_flags


def test_a_flag_is_its_sentence():
    flag = Flag("noise", "noise is 20 %")
    assert flag == "noise is 20 %" and json.dumps([flag]) == '["noise is 20 %"]'
    assert flag.code == "noise" and flag.advice == ADVICE["noise"]
    assert pickle.loads(pickle.dumps(flag)).code == "noise"
    with pytest.raises(KeyError, match="nois"):
        Flag("nois", "noise is 20 %")


def test_a_repeated_flag_is_recorded_once():
    flags = [Flag("noise", "a"), Flag("skull", "b"), Flag("noise", "a")]
    record = record_flags(flags)
    assert record == {
        "flags": ["a", "b"],
        "flag_codes": ["noise", "skull"],
        "flag_advice": [ADVICE["noise"], ADVICE["skull"]],
    }
    assert all(type(flag) is str for flag in record["flags"])
    assert describe_flags(record)[1] == f"skull: b; {ADVICE['skull']}"
    assert describe_flags({"flags": ["a"]}) == ["a"]  # of an older version
    assert describe_flags({}) == []


def test_advice_is_a_short_phrase():
    assert list(ADVICE) == sorted(ADVICE)
    for code, advice in ADVICE.items():
        assert code == code.lower() and not advice.endswith(".") and len(advice.split()) <= 25
