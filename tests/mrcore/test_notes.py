import copy
import json
import pickle

from mrcore.notes import Caution, cautions, prefixed

NOTES = ("plain", Caution("less"), Caution("wrong", rank=0), Caution("less"), "end")


def test_the_worst_comes_first_and_each_once():
    assert cautions(NOTES) == ["wrong", "less"]
    assert not cautions(("plain",))


def test_a_caution_is_text_and_stays_a_caution():
    note = NOTES[2]
    assert json.dumps(NOTES) == '["plain", "less", "wrong", "less", "end"]'
    for again in (copy.deepcopy(note), pickle.loads(pickle.dumps(note)), *dict.fromkeys([note])):
        assert again == "wrong"
        assert (type(again), again.rank) == (Caution, 0)


def test_a_prefix_changes_the_text_alone():
    assert prefixed("scan 2: ", "plain") == "scan 2: plain"
    assert not isinstance(prefixed("scan 2: ", "plain"), Caution)
    found = prefixed("scan 2: ", NOTES[2])
    assert found == "scan 2: wrong"
    assert isinstance(found, Caution)
    assert found.rank == 0
