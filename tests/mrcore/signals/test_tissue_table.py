import pytest

from mrcore.errors import BadInputError
from mrcore.signals.tissue import TISSUE_TABLE, relaxation
from mrcore.signals.tissue_table import load_tissue_table

SAMPLE = """
# Own values; everything else stays as built in.
[WM]
t1_s = [
    { field_t = 0.05, value = 0.25, spread = 0.02, source = "own scan" },
    { field_t = 0.2, value = 0.5, source = "Smith 2020" },
]

[GM]
field_t = 0.064
source = "own scan"
spread = 0.1
t1_s = 0.34
t2_s = 0.10

[lesion]
field_t = 0.064
source = "guess"
t1_s = 0.6
t2_s = 0.2
pd = 0.9
"""


def _write(tmp_path, text, name="table.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_replaces_what_it_names_and_keeps_the_rest(tmp_path):
    table = load_tissue_table(_write(tmp_path, SAMPLE))
    white = relaxation("WM", 0.1, table)  # half way in log field between 0.05 and 0.2 T
    assert white.t1_s == pytest.approx((0.25 * 0.5) ** 0.5)
    assert white.t2_s == relaxation("WM", 0.1).t2_s
    assert {"own scan", "Smith 2020"} <= set(white.sources)
    grey = relaxation("GM", 0.064, table)
    assert (grey.t1_s, grey.t2_s, grey.pd) == (0.34, 0.10, relaxation("GM", 0.064).pd)
    assert (grey.t1_spread_s, grey.t2_spread_s) == pytest.approx((0.034, 0.010))
    assert relaxation("lesion", 0.064, table).pd == 0.9
    assert table["CSF"] == TISSUE_TABLE["CSF"]
    assert "lesion" not in TISSUE_TABLE
    with pytest.raises(BadInputError, match="not extrapolated"):
        relaxation("GM", 1.5, table)


GOOD = 'field_t = 0.064\nsource = "own"\n'


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[WM]\n" + GOOD + "t1_s = 275", r"table\.toml, WM, t1_s.*275; were milliseconds"),
        ("[WM]\n" + GOOD + "t2_s = 77.0", r"WM, t2_s.*milliseconds"),
        ("[WM]\n" + GOOD + "pd = 70", r"WM, pd.*water is 1"),
        ("[WM]\n" + GOOD + "t1_s = -0.3", r"WM, t1_s.*positive"),
        ("[WM]\n" + GOOD + "t1_s = 0", r"WM, t1_s.*positive"),
        ("[WM]\n" + GOOD + "t1_s = nan", r"WM, t1_s: expected a number"),
        ("[WM]\n" + GOOD + "t1_s = inf", r"WM, t1_s.*got inf"),
        ("[WM]\n" + GOOD + "t1_s = true", r"WM, t1_s: expected a number, got True"),
        ("[WM]\n" + GOOD + 't1_s = "0.3"', r"WM, t1_s: expected a number, got '0.3'"),
        ("[WM]\n" + GOOD + "T1 = 0.3", r"WM: unknown key 'T1'"),
        ("[WM]\n" + GOOD + "spread = 0.1", r"WM: none of t1_s, t2_s, pd"),
        ("[WM]\n" + GOOD + "t1_s = 0.3\nspread = 3", r"WM, t1_s.*fraction"),
        ("[WM]\n" + GOOD + "t1_s = 0.08\nt2_s = 0.3", r"WM: T2 0.3 s is above T1 0.08 s.*swapped"),
        ('[WM]\nsource = "own"\nt1_s = 0.3', r"WM, t1_s: field_t .*missing"),
        ('[WM]\nsource = "own"\nfield_t = 64\nt1_s = 0.3', r"WM, t1_s: field_t.*64; were millitesla"),
        ("[WM]\nfield_t = 0.064\nt1_s = 0.3", r"WM, t1_s: source is missing"),
        ('[WM]\nfield_t = 0.064\nsource = " "\nt1_s = 0.3', r"source is missing"),
        ("[WM]\nt1_s = [{field_t = 0.064, value = 0.3}]", r"WM, t1_s, anchor 1: source is missing"),
        ('[WM]\nt1_s = [{field_t = 0.064, source = "s"}]', r"anchor 1: value is missing"),
        ('[WM]\nt1_s = [{value = 0.3, source = "s"}]', r"anchor 1: field_t"),
        ('[WM]\nt1_s = [{field_t = 0.064, value = 0.3, spread = 9, source = "s"}]', r"anchor 1: spread"),
        ('[WM]\nt1_s = [{field_t = 0.064, t1 = 0.3, source = "s"}]', r"anchor 1: unknown key 't1'"),
        ("[WM]\nt1_s = [0.3]", r"anchor 1: an anchor has the keys"),
        ("[WM]\nt1_s = []", r"WM, t1_s: anchors"),
        (
            '[WM]\nt1_s = [{field_t = 3, value = 0.8, source = "s"}, {field_t = 1.5, value = 0.6, source = "s"}]',
            r"WM, t1_s: anchors must come in order",
        ),
        ("[bone]\n" + GOOD + "t1_s = 0.3", r"bone: the built-in table lacks.*t2_s, pd"),
        ("WM = 0.3", r"WM: expected a block"),
        ("", r"is empty"),
        ("[WM\n", r"table\.toml cannot be read"),
        ("[WM]\n[WM]\n", r"table\.toml cannot be read"),
    ],
)
def test_every_mistake_is_named(tmp_path, text, match):
    with pytest.raises(BadInputError, match=match):
        load_tissue_table(_write(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("t.json", "[1]", "one block per tissue, got list"),
        ("t.json", "{", "cannot be read"),
        ("t.json", '{"WM": {}, "WM": {}}', "given twice"),
        ("t.yaml", "", r"\.toml or \.json"),
    ],
)
def test_files_of_other_kinds_are_refused(tmp_path, name, text, match):
    with pytest.raises(BadInputError, match=match):
        load_tissue_table(_write(tmp_path, text, name))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"none\.toml cannot be read"):
        load_tissue_table(tmp_path / "none.toml")
