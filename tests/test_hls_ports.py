"""The ports of the HLS projects: words to beats and back by the C++ that Vitis HLS gets, against a model in Python; what they refuse."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import hls4ml
import pytest

from driver.streamed import Port
from hls.vitis import csim, ports
from hls.vitis.sizing import SizingError

SEED = 8
WORDS = 3
TEMPLATES = Path(hls4ml.__file__).parent / "templates" / "vivado"


@dataclass(frozen=True)
class Case:
    """Elements of ``bits`` in fields of ``field``, ``channels`` a word, in beats of ``beat`` bits."""

    bits: int
    field: int
    channels: int
    beat: int
    signed: bool

    @property
    def types(self) -> tuple[str, str]:
        """C++ types of an element and of its field."""
        u = "" if self.signed else "u"
        return f"ap_{u}fixed<{self.bits}, {self.bits // 2}>", f"ap_{u}int<{self.field}>"

    @property
    def beats(self) -> int:
        """Of a word."""
        return -(-self.channels * self.field // self.beat)


CASES = [
    Case(8, 8, 3, 32, False),  # a pixel of an image
    Case(12, 16, 5, 32, False),
    Case(19, 32, 16, 512, True),  # a link
    Case(19, 32, 20, 512, True),
    Case(32, 32, 3, 32, True),
    Case(5, 8, 9, 32, True),
    Case(1, 8, 4, 32, False),
    Case(16, 16, 33, 256, True),
]

MAIN = """#include "axi_ports.h"
#include "nnet_utils/nnet_types.h"
#include <cstdio>
template <class ELEMENT, class FIELD, unsigned CHANNELS, int BEAT> void through(const long long *values) {
    typedef nnet::array<ELEMENT, CHANNELS> Word;
    hls::stream<Word> words("words"), back("back");
    hls::stream<ap_axiu<BEAT, 0, 0, 0>> beats("beats"), copy("copy");
    for (unsigned i = 0; i < %(words)d; ++i) {
        Word word;
        for (unsigned k = 0; k < CHANNELS; ++k) word[k].range(ELEMENT::width - 1, 0) = ap_uint<ELEMENT::width>(*values++);
        words.write(word);
    }
    axi_ports::give<FIELD, %(words)d>(words, beats);
    while (beats.level != 0) {
        const ap_axiu<BEAT, 0, 0, 0> beat = beats.read();
        for (int i = BEAT - 8; i >= 0; i -= 8) std::printf("%%02x", beat.data.range(i + 7, i).to_uint());
        std::printf(" %%u\\n", beat.last.to_uint());
        copy.write(beat);
    }
    axi_ports::take<FIELD, %(words)d>(copy, back);
    while (back.level != 0) {
        Word word = back.read();
        for (unsigned k = 0; k < CHANNELS; ++k) std::printf("%%llu ", (unsigned long long)word[k].range(ELEMENT::width - 1, 0).to_uint64());
    }
    std::printf("\\n");
}
int main() {
%(calls)s}
"""


@pytest.fixture(scope="module")
def values() -> list[list[int]]:
    """The bits of every element, of every case; all ones and all zeros among them."""
    rng = random.Random(SEED)
    return [
        [*(rng.choice((0, 2**c.bits - 1, rng.getrandbits(c.bits))) for _ in range(WORDS * c.channels))] for c in CASES
    ]


@pytest.fixture(scope="module")
def said(values: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the C++ prints: of each case its beats, then the elements that came back."""
    folder = tmp_path_factory.mktemp("ports")
    calls = ""
    for number, (case, bits) in enumerate(zip(CASES, values, strict=True)):
        element, field = case.types
        calls += f"    static const long long v{number}[] = {{{', '.join(map(str, bits))}}};\n"
        calls += f"    through<{element}, {field}, {case.channels}, {case.beat}>(v{number});\n"
    (folder / "main.cpp").write_text(MAIN % {"words": WORDS, "calls": calls})
    folders = [f"-I{path}" for path in (csim.SOURCES, TEMPLATES, TEMPLATES / "ap_types")]
    subprocess.run(["g++", "-std=c++11", "-w", *folders, folder / "main.cpp", "-o", folder / "main"], check=True)
    return subprocess.run([folder / "main"], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("number", range(len(CASES)), ids=[str(case.types[0]) for case in CASES])
def test_words_become_beats_with_element_0_lowest_and_come_back(said: list[str], values: list[list[int]], number: int):
    case, bits = CASES[number], values[number]
    start = sum(WORDS * c.beats + 1 for c in CASES[:number])
    lines = said[start : start + WORDS * case.beats + 1]
    expected = []
    for word in range(WORDS):
        vector = 0
        for place, element in enumerate(bits[word * case.channels : (word + 1) * case.channels]):
            negative = case.signed and element >> (case.bits - 1)
            value = element - (negative << case.bits)
            vector |= (value % 2**case.field) << (place * case.field)
        for beat in range(case.beats):
            data = vector >> (beat * case.beat) & (2**case.beat - 1)
            last = word == WORDS - 1 and beat == case.beats - 1
            expected.append(f"{data:0{case.beat // 4}x} {int(last)}")
    assert lines[:-1] == expected, f"seed {SEED}"
    assert [int(word) for word in lines[-1].split()] == bits, f"seed {SEED}"


def graph(bits: int = 8, inputs: int = 1) -> SimpleNamespace:
    """A ModelGraph, as far as ports need it."""
    precision = SimpleNamespace(width=bits, integer=bits // 2, signed=True)
    variable = SimpleNamespace(name="x", type=SimpleNamespace(name="x_t", precision=precision), shape=[2, 3, 5])
    return SimpleNamespace(
        get_input_variables=lambda: [variable] * inputs,
        get_output_variables=lambda: [variable],
        config=SimpleNamespace(get_project_name=lambda: "net"),
    )


def test_a_port_has_the_narrowest_field_that_holds_an_element():
    assert [ports.streams(graph(bits))[0].port.field_bits for bits in (8, 9, 16, 17, 32)] == [8, 16, 16, 32, 32]
    assert ports.streams(graph(19))[0].port == Port(6, 5, 32, 10, True)


def test_elements_too_wide_for_a_port_are_refused():
    with pytest.raises(SizingError, match="x has elements of 33 bits; a port takes 32"):
        ports.streams(graph(33))


def test_a_network_of_two_inputs_is_refused():
    with pytest.raises(SizingError, match="net should have one input and one output"):
        ports.streams(graph(inputs=2))


def test_projects_that_do_not_fit_together_are_refused(tmp_path: Path):
    with pytest.raises(SizingError, match="x is not what the next project reads"):
        ports.write_ports([graph(8), graph(16)], [tmp_path / "a", tmp_path / "b"], tmp_path)
