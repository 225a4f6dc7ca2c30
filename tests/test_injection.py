"""Names that anyone chose are text in every form that is written, and nothing more."""

import csv
import html
import html.parser
import io
import re

import pytest
from kinds import daily_if
from markdown_it import MarkdownIt
from rich.console import Console
from synthetic import needles, row
from test_forms import CASES

from posenc_jax import storage
from posenc_jax.errors import visible
from posenc_jax.reporting import row_files, table_writers
from posenc_jax.reporting.board import page as board_page
from posenc_jax.reporting.html import page
from posenc_jax.reporting.html.gathered import gather
from posenc_jax.reporting.mpl import figures
from posenc_jax.reporting.table_forms import make_tables
from posenc_jax.rows import sessions

PAYLOADS = [
  '<script>alert(1)</script>',
  '<img src=x onerror=alert(1)>',
  'a|b',
  '[a](https://example.org)',
  '![a](https://example.org/x.png)',
  '**a** _b_ __c__',
  '`a` ~~b~~ \\',
  'a\nb\r\n# c',
  '=1+1',
  '=cmd|" /C calc"!A0',
  '+1',
  '-1',
  '@SUM(A1)',
  '\t=1',
  '\r=1',
  '\uff1d1',
  '\x1b[2J\x1b]0;title\x07',
  '\x9b31m',
  'a\u202egnp.exe',
  '\u2066a\u2069\u200b\ufeff',
  '\0',
  '\ud800',
  '$x$',
  r'$\frac{1}{$',
  r'$$\undefined$$',
  r'\input{/etc/hostname}',
  r'\write18{ls} & % # _ ^ ~ {',
  '[red]a[/red] [/b] [link=file:///]x',
  '{0.__class__} {}',
  '&lt;b&gt; &#60;',
  'https://example.org www.example.org',
  '</script><!-- -->',
  '{{ 7 * 7 }}{% raw %}',
  '%{x}<br>',
  'x' * 200,
  '- a',
  '# a',
  '1. a',
]


@pytest.fixture(params=PAYLOADS, ids=range(len(PAYLOADS)))
def payload(request):
  return request.param


@pytest.fixture
def rows(payload, tmp_path):
  """Rows in which every name that may be any text is the payload, beside plain ones."""
  texts = dict.fromkeys(('label', 'encoding', 'corpus', 'document', 'run'), payload)
  made = [row('rope', seed, n, 1.0 + seed) for seed in (0, 1) for n in (8, 16)]
  made += [row('rope', seed, n, 1.5) | texts for seed in (0, 1) for n in (8, 16)]
  made += [
    row('rope', seed, n, 1.5, overrides={payload: payload, 'encoding.x': payload}) | texts
    for seed in (0, 1)
    for n in (8, 16)
  ]
  storage.append_rows(tmp_path / 'rows.jsonl', made)
  return row_files.read(tmp_path)


def tables_of(rows, payload):
  """Tables of every form, in which the payload is a label, and a baseline, too."""
  reference = [dict(line=visible(payload), values={8: visible(payload)[:50]}, source='x')]
  made = []
  for form, settings in {
    'lengths': dict(baseline=visible(payload), reference=reference),
    'training_lengths': dict(metric='ppl'),
    'methods': {},
  }.items():
    made += make_tables(rows, [visible(payload), 'gone'], form=form, **settings)
  for form in ('distances', 'effective_lengths'):
    others, settings = CASES[form]
    first = others[0]['label']
    others = [r | {'label': visible(payload)} if r['label'] == first else r for r in others]
    made += make_tables(others, [visible(payload), 'gone'], form=form, **settings)
  return made


def test_all_that_is_read_is_one_line_that_can_be_printed(rows):
  for some in rows:
    assert all(value.isprintable() for value in some.values() if isinstance(value, str))
    assert all(key.isprintable() for key in some['overrides'] or {})


def test_markdown_has_it_as_text(rows, payload):
  for table in tables_of(rows, payload):
    text = table_writers.markdown(table)
    assert all(line.isprintable() for line in text.split('\n'))
    assert not re.search(r'<[A-Za-z/!?]', re.sub(r'\\.', '', text))
    plain = re.sub(r'\\.', '', text)  # what is escaped is text
    assert '`' not in plain
    assert '~' not in plain
    assert '$' not in plain
    assert '](' not in plain
    assert '://' not in plain
    assert not re.search(r'&#?\w+;', plain)
    assert not re.search(r'(?<![^\W_])_|_(?![^\W_])', plain)
    for paragraph in text.split('\n\n')[1:]:
      assert re.match(r'[\w\\*|-]', paragraph), paragraph
      assert not re.match(r'(\d+[.)]|[#>+=]|- [#>+=-]|- \d+[.)])', paragraph), paragraph
    pipes = [line for line in plain.split('\n') if line.startswith('|')]
    widths = [line.count('|') for line in pipes]
    assert {*widths} <= {len(table.header) + 1, *(len(h) + 1 for _, h, _ in table.per_seed)}


def test_a_reader_of_markdown_shows_the_name_itself(rows):
  (table, *_) = make_tables(rows, ['gone'])
  reader = MarkdownIt().enable(['table', 'strikethrough'])
  tokens = reader.parse(table_writers.markdown(table))
  assert {token.type for token in tokens if token.type.endswith('_open')} <= {
    *('heading_open', 'paragraph_open', 'bullet_list_open', 'list_item_open', 'table_open'),
    *('thead_open', 'tbody_open', 'tr_open', 'th_open', 'td_open'),
  }
  shown = [''.join(c.content for c in t.children) for t in tokens if t.type == 'inline']
  kinds = {c.type for t in tokens if t.type == 'inline' for c in t.children}
  assert kinds <= {'text', 'text_special', 'strong_open', 'strong_close'}
  names = [line[0].text for line in table.groups[0].lines]
  assert {' '.join(name.split()) for name in names} <= {' '.join(text.split()) for text in shown}
  assert {*table.notes} <= {*shown}


TEXTS = ('protocol', 'control', 'corpus', 'encoding', 'baseline', 'metric', 'status')
TEXTS += ('compared_with', 'mark', 'table')


def test_csv_has_no_formula_and_numbers_stay_numbers(rows, payload):
  file = io.StringIO()
  csv.writer(file).writerows(table_writers.csv_lines(tables_of(rows, payload)))
  file.seek(0)
  for line in csv.DictReader(file):
    for name, text in line.items():
      if name in TEXTS:
        assert not text.startswith(('=', '+', '-', '@', '\t', '\r', '\uff1d'))
        assert text.isprintable()
      elif text not in ('', 'True', 'False'):
        float(text)


def test_negative_differences_stay_numbers_in_csv():
  table = make_tables([row('a', bits=1.0), row('b', bits=2.0)], baseline='b')[1]
  header, line = table_writers.csv_lines([table])
  assert line[header.index('difference')] == -1.0


def test_the_terminal_shows_it_as_text(rows, payload):
  for table in tables_of(rows, payload):
    file = io.StringIO()
    console = Console(file=file, force_terminal=False, width=4000)
    console.print(table_writers.on_screen(table, console.width))
    assert all(line.isprintable() for line in file.getvalue().split('\n'))
  if payload == PAYLOADS[27]:
    assert payload in file.getvalue()


def test_latex_has_it_as_text(rows, payload):
  for table in tables_of(rows, payload):
    text = table_writers.latex(table, 'tab:a')
    assert all(line.isprintable() for line in text.split('\n'))
    commands = re.findall(r'\\([A-Za-z]+)', text)
    assert not {'input', 'write', 'frac', 'undefined'} & {*commands}
    plain = text.replace(r'\{', '').replace(r'\}', '')
    assert plain.count('{') == plain.count('}')
    assert '%' not in re.sub(r'\\%', '', text)


@pytest.mark.parametrize(
  'payload',
  [pytest.param(text, marks=daily_if(n % 6 == 0), id=str(n)) for n, text in enumerate(PAYLOADS)],
)
def test_a_figure_draws_it_as_text(rows, payload, recwarn):
  figure = figures.draw(rows, metric='ppl')
  names = [text.get_text() for text in figure.axes[0].texts]
  some = visible(payload)
  shown = some if len(some) <= 60 else some[:29]
  assert any(name.startswith(shown) for name in names)
  assert all(len(name) <= 60 and name.isprintable() for name in names)
  figure.savefig(io.BytesIO(), dpi=20)
  made = [r | {'label': visible(payload)} for r in needles(1, lines=('x',), depths=(0, 50))]
  figures.draw(made, form='heat_map').savefig(io.BytesIO(), dpi=20)


class Tags(html.parser.HTMLParser):
  """Counts the elements of a page."""

  def __init__(self, text):
    super().__init__()
    self.found = []
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.found.append((tag, *(name for name, _ in attributes)))


def test_the_page_has_them_as_text(tmp_path):
  """A page with a row of each has no element that a page of as many plain names has not."""

  def page_of(names):
    folder = tmp_path / names[0]
    folder.mkdir()
    texts = [dict.fromkeys(('label', 'encoding', 'corpus', 'document', 'run'), n) for n in names]
    storage.append_rows(folder / 'rows.jsonl', [row('rope') | some for some in texts])
    return page.render(gather([folder]), 'bpb')

  text = page_of(['rope', *PAYLOADS])
  plain = page_of(['plain', *(f'name{n}' for n in range(len(PAYLOADS)))])
  assert {*Tags(text).found} <= {*Tags(plain).found}
  library = max(re.findall(r'<script>.*?</script>', text, re.DOTALL), key=len)
  own = text.replace(library, '')
  assert all(line.isprintable() for line in re.split(r'[\n\t]', own))


def facts_of(text):
  """What a board says of folders in which anyone has written this text."""
  session = {'run': 'a', 'began': '2025-01-01', 'commit': text, 'is_edited': False}
  session |= {'device': f'{text} cpu', 'processor': text}
  link = table_writers.markdown_link(text, 'a.py')
  links = {'folder_links': link, 'study_links': link, 'folders': 'a', 'studies': text}
  own = {'command': 'python scripts/board.py', 'runs': '1', 'sha256': '0'}
  said = sessions.sentence([session | {'packages': {'jax': text}}], {'a'})
  return {'about': f'About: {text}', 'sessions': said} | links | own


def test_the_board_has_what_folders_say_as_text(payload):
  def kinds(markdown):
    tokens = MarkdownIt().enable(['table', 'strikethrough']).parse(markdown)
    every = [t for token in tokens for t in (token, *(token.children or ()))]
    return [(t.type, t.attrGet('href')) for t in every if t.type not in ('text', 'text_special')]

  text, plain = (board_page.in_markdown([], None, facts_of(x)) for x in (payload, 'name'))
  assert kinds(text) == kinds(plain)
  assert all(line.isprintable() for line in text.split('\n'))
  assert not re.search(r'(?<!\\)\$', text)
  text, plain = (board_page.in_html([], None, facts_of(x)) for x in (payload, 'name'))
  assert Tags(text).found == Tags(plain).found
  assert all(line.isprintable() for line in text.split('\n'))
  assert html.unescape(text).count(visible(payload)) >= 3


def test_names_in_use_are_left_as_they_are():
  for name in (
    'transformer_xl',
    't5',
    'chain(logn, rope)',
    'rope [encoding.base=5.0]',
    'a-b',
    '+1',
  ):
    assert table_writers.escape_markdown(name) == name
