"""The page of an answer: one HTML file without scripts, which needs no network."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2

from gapbench.evaluation.answer import Answer
from gapbench.evaluation.headline import percent
from gapbench.evaluation.tables import number

TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 } .wide { overflow-x: auto }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #8886 }
th:first-child, td:first-child { text-align: left } tr.best { background: #0072b222; font-weight: 600 }
.narrow { color: #b03000 } pre { background: #8882; padding: .6rem; overflow-x: auto }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #e6e6e6 } .narrow { color: #ff9a6b } }
</style>
<h1>{{ title }}</h1>
<p>{{ about }}</p>
{% if answer.best %}
<h2>Use {{ answer.best }}</h2>
{% else %}
<h2>No method to use</h2>
{% endif %}
<p>{% for sentence in answer.why %}{{ sentence }} {% endfor %}</p>
{% if command %}<p>Train it on all rows, and predict new ones:</p><pre>{{ command }}</pre>{% endif %}
{% for place in answer.places %}
<h2>On {{ place.name }}</h2>
<div class="wide"><table>
<thead><tr><th>method</th><th>its 90 % intervals</th><th>hold</th><th>right if</th><th>CRPS</th><th>width</th>
<th>RMSE</th><th>CPU s</th><th>too narrow most where</th></tr></thead>
<tbody>
{% for one in place.judged %}
<tr{% if one.method == answer.best %} class="best"{% endif %}>
<td>{{ one.method }}{% if one.status != "ranked" %} ({{ one.status }}){% endif %}</td>
<td{% if one.verdict == "too narrow" %} class="narrow"{% endif %}>are {{ one.verdict }}</td>
<td>{{ share(one.coverage) }}</td><td>{{ share(one.band[0]) }} to {{ share(one.band[1]) }}</td>
<td>{{ number(one.crps) }}</td><td>{{ number(one.width) }}</td><td>{{ number(one.rmse) }}</td>
<td>{{ number(answer.seconds.get(one.method, nan)) }}</td><td>{{ one.weak }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endfor %}
<h2>How to read this</h2>
<ul>
<li>CRPS judges the whole predicted distribution, in the units of {{ target }}; less is better. So does the width of the
90 % intervals, where they are right. CPU s: of one fit.</li>
<li>"Right": the share that the intervals hold is where chance would have it if they were right, with probability 95 %.
Rows of one gap belong together, so a method may be somewhat outside by chance.</li>
<li>"Too narrow most where": of the rows with low, middling and high values of each feature, those with the least
coverage, if chance alone would not bring it so low.</li>
<li>A gap is the middle third of the rows in the order of one feature, left out of the training.</li>
</ul>
{% if notes %}
<h2>What was done with the columns</h2>
<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>
{% endif %}
</html>
"""


def page(answer: Answer, title: str, about: str, target: str, notes: Sequence[str], command: str) -> str:
    """The page as HTML; every word in it is escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(TEMPLATE).render(
        answer=answer,
        title=title,
        about=about,
        target=target,
        notes=notes,
        command=command,
        number=number,
        share=lambda value: "n/a" if value != value else percent(value),
        nan=float("nan"),
    )
