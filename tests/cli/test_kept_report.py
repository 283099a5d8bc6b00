import json

from layerpeel.cli.kept_report import KeptReport
from layerpeel.cli.narrowing import Narrowing
from layerpeel.reports.clone_report import CloneReport
from tests.reports.clone_profiles import planted


def test_the_neurons_kept_are_the_last_section_in_every_form():
    profile = planted("low rank")
    report = CloneReport.of(profile)
    kept = Narrowing(4, None, "pivoted", 0).of(profile, None)
    document = KeptReport(report, kept)
    content = json.loads(document.to_json())
    own = json.loads(report.to_json())
    assert content.pop("kept") == json.loads(json.dumps(kept.to_dict()))
    *sections, last = content.pop("sections")
    assert (sections, last["title"]) == (own.pop("sections"), "Neurons kept")
    assert content == own
    first_words = kept.section().text[:20]
    assert document.to_text().startswith(report.to_text()[:500])
    assert first_words in document.to_text()
    assert first_words in document.to_html()
