"""The log: numbered, dated entries, each listed in its README under its title."""

import re
from pathlib import Path

LOG = Path(__file__).parent.parent / 'LOG'


def test_the_log_lists_its_entries_under_their_titles():
  entries = sorted(path for path in LOG.glob('*.md') if path.name != 'README.md')
  readme = (LOG / 'README.md').read_text()
  listed = re.findall(r'^- \[(\d+)\]\(([^)]*)\) (.*)$', readme, re.MULTILINE)
  assert [name for _, name, _ in listed] == [path.name for path in entries]
  for number, (path, (shown, name, title)) in enumerate(zip(entries, listed, strict=True), 1):
    assert int(shown) == int(name.partition('-')[0]) == number
    heading, _, date = path.read_text().split('\n')[:3]
    assert heading == f'# {title}'
    assert re.fullmatch(r'Date: \d{4}-\d\d-\d\d', date)
