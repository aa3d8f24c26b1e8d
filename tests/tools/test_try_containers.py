"""The steps of container recipes without Docker and Apptainer."""

import json
import os
import sys

import pytest

from helpers.scripts import ROOT, load_script

containers = load_script("tools/try_containers.py")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the script needs Linux")
RECIPE = """\
# A comment with RUN rm -rf /
FROM debian AS build
ARG INDEX=""
ENV A=1 \\
    PATH=/opt/bin:$PATH
RUN make ${INDEX:+--index "$INDEX"} all
COPY LICENSE README.md /src/
COPY tools /src/tools

FROM debian
COPY --from=build /src /opt/src
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["maediff"]
CMD ["--help"]
"""


@pytest.fixture
def steps(monkeypatch):
    """Record the steps instead of running them, which needs root."""
    made = []

    def run(program, *words, environment, offline):
        made.append((program, words, environment, offline))

    monkeypatch.setattr(containers, "run_in", run)
    return made


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc" / "passwd").write_text("root")
    return folder


def test_steps_of_a_dockerfile(steps, base, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    image = containers.build_docker(RECIPE, base, work, {"INDEX": "here"}, {"PIP_CERT": "c"})
    ((program, words, environment, offline),) = steps
    assert program == containers.STEP and not offline
    assert words == (work / "build", 'make ${INDEX:+--index "$INDEX"} all')
    assert environment["PATH"] == f"/opt/bin:{containers.PATH}"
    assert (environment["A"], environment["INDEX"], environment["PIP_CERT"]) == ("1", "here", "c")
    assert image.folder == work / "stage-1" and image.user == "1000:1000"
    assert image.entry == ["maediff"] and "A" not in image.environment
    copied = {path.name for path in (image.folder / "opt" / "src").iterdir()}
    assert copied == {"LICENSE", "README.md", "tools"}
    assert (image.folder / "etc" / "passwd").is_file() and (image.folder / "data").is_dir()


def test_an_unknown_instruction_is_refused(base, tmp_path):
    with pytest.raises(RuntimeError, match="HEALTHCHECK is unknown"):
        containers.build_docker("HEALTHCHECK NONE", base, tmp_path, {}, {})


def test_all_instructions_of_the_dockerfile_are_known(steps, base, tmp_path):
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (base / "opt" / "maediff").mkdir(parents=True)
    work = tmp_path / "work"
    work.mkdir()
    image = containers.build_docker(text, base, work, {}, {})
    assert image.entry == ["maediff"] and image.user == containers.USER
    assert [words[1].split()[0] for _, words, _, _ in steps] == [
        "python",
        "/opt/maediff/bin/pip",
        "/opt/maediff/bin/pip",
        "useradd",
    ]


def test_steps_and_calls_of_an_apptainer_recipe(steps, base, tmp_path, monkeypatch, capsys):
    work, data = tmp_path / "work", tmp_path / "data"
    (data / "results" / "sample").mkdir(parents=True)
    (data / "results" / "sample" / "summary.json").write_text(json.dumps({"regions": [1]}))
    work.mkdir()
    monkeypatch.setattr(sys, "argv", ["try_containers.py", str(base), str(work)])
    args = containers.build_parser().parse_args()
    containers.try_apptainer(args, {}, data)
    (post, *calls) = steps
    assert 'torch_index="default"' in post[1][1] and not post[3]
    assert (work / "apptainer" / "opt" / "src" / "src" / "maediff").is_dir()
    assert [words[4:] for _, words, _, _ in calls] == [
        (),
        ("--version",),
        tuple(containers.DETECT.split()),
    ]
    for _, words, _, offline in calls:
        assert offline and words[2] == containers.USER and "export PATH=/opt/maediff" in words[3]
    assert "maediff-bids" in calls[1][1][3] and 'exec maediff "$@"' in calls[2][1][3]
    assert "3 calls" in capsys.readouterr().out


@pytest.mark.parametrize("summaries", [[], [{"regions": []}]])
def test_a_missed_lesion_is_refused(steps, tmp_path, summaries):
    for number, summary in enumerate(summaries):
        folder = tmp_path / "results" / str(number)
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(RuntimeError, match="lesion of the sample was not detected"):
        containers.check_calls(containers.Image(tmp_path), tmp_path, {"x": 'maediff "$@"'})
