"""The markup of a bundle's summary page. Its policy forbids what it has no need of: scripts, and whatever is elsewhere."""

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evidence of conversion postbacks</title>
<style>
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .3rem; border-top: 2px solid; padding-top: .6rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
dl { display: grid; grid-template-columns: 11rem 1fr; gap: .15rem .8rem; margin: .3rem 0; }
dt { opacity: .75; } dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
pre { margin: 0; padding: .4rem .6rem; background: var(--soft); white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
table { border-collapse: collapse; width: 100%; margin: .4rem 0; } th, td { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
article { border: 1px solid var(--line); padding: .2rem .8rem .6rem; margin: .6rem 0; }
.verdict { font-weight: 600; } .note { border-left: 4px solid; padding-left: .8rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dt { margin-top: .4rem; } }
@media print {
  body { font-size: 10pt; max-width: none; padding: 0; color-scheme: light; }
  h2, h3, dt { break-after: avoid; } dl, pre { orphans: 3; widows: 3; } pre { background: none; border: 1px solid #999; }
  @page { margin: 15mm; }
}
</style>
</head>
<body>
<main>
<h1>Evidence of conversion postbacks</h1>
<dl>
{% if handing.about %}<dt>what was asked</dt><dd><bdi>{{ handing.about | seen }}</bdi></dd>{% endif %}
{% if handing.network %}<dt>for</dt><dd>{{ handing.network.title | seen }}</dd>{% endif %}
{% if handing.selection %}<dt>chosen</dt><dd><bdi>{{ handing.selection | seen }}</bdi></dd>{% endif %}
<dt>made</dt><dd>{{ made_at }}{% if handing.who %} by <bdi>{{ handing.who | seen }}</bdi>{% endif %}, Holdfire {{ version | seen }}</dd>
<dt>times</dt><dd>{{ handing.zone }}, each with its offset from UTC</dd>
<dt>holds</dt><dd>{% for name, count in totals.numbers().items() %}{{ count }} {{ name }}{{ ", " if not loop.last }}{% endfor %}</dd>
{% if handing.mask_click_ids %}<dt>click ids</dt><dd>masked as [click:SHA-256, length]</dd>{% endif %}
<dt>signed by</dt><dd>{{ fingerprint }}</dd>
</dl>
{% if missing %}<p class="note">Not found, and so not here: {{ missing | join(", ") }}.</p>{% endif %}
{% if handing.network and (handing.network.support.basis or handing.network.support.notes) %}
<p class="note">
{% if handing.network.support.basis %}The network's page: {{ handing.network.support.basis | seen }}.{% endif %}
{% if handing.network.support.notes %}To mind: {{ handing.network.support.notes | seen }}.{% endif %}
</p>
{% endif %}
{% for title, counts in tables if counts %}
<table><caption hidden>{{ title }}</caption>
<thead><tr><th scope="col">{{ title }}</th><th scope="col">how many</th></tr></thead>
<tbody>{% for name, count in counts.items() %}<tr><td>{{ name | seen }}</td><td>{{ count }}</td></tr>{% endfor %}</tbody></table>
{% endfor %}
<p>An answer that the network's rules take for a success is called <em>delivered</em>: it shows that the network took the
request, not that it counted it. Secrets are shown as [secret:SHA-256]. The transcripts beside this page show every
exchange as <code>curl --verbose</code> would; what cannot be printed is shown as \\xNN.</p>
"""

CONVERSION = """<section>
<h2>{{ id }} <bdi>{{ name | seen }}</bdi>, {{ worth | seen }}{% if order %}, order <bdi>{{ order | seen }}</bdi>{% endif %}</h2>
<dl>
<dt>event</dt><dd><bdi>{{ event_id | seen }}</bdi></dd>
<dt>happened</dt><dd>{{ occurred }}</dd>
<dt>received</dt><dd>{{ received }}</dd>
{% if unrouted %}<dt>not sent</dt><dd><bdi>{{ unrouted | seen }}</bdi></dd>{% endif %}
</dl>
{% if postbacks %}
<table>
<thead><tr><th scope="col">postback</th><th scope="col">to</th><th scope="col">state</th><th scope="col">what comes next</th></tr></thead>
<tbody>
{% for each in postbacks %}
<tr><td>{{ each.id }}{% if each.corrects %}, corrects {{ each.corrects }}{% endif %}</td><td>{{ each.destination | seen }} (<bdi>{{ each.network | seen }}</bdi>)</td><td>{{ each.state }}</td><td><bdi>{{ each.next | seen }}</bdi></td></tr>
{% endfor %}
</tbody></table>
{% endif %}
{% for attempt in attempts %}
<article>
<h3>{{ attempt.id }}: attempt {{ attempt.number }} of {{ attempt.postback }}, <span class="verdict">{{ attempt.verdict }}</span>{% if attempt.rule %} (<bdi>{{ attempt.rule | seen }}</bdi>){% endif %}</h3>
<dl>
{% for name, value, wide in attempt.fields %}
<dt>{{ name }}</dt><dd>{% if wide %}<pre>{{ value }}</pre>{% else %}{{ value }}{% endif %}</dd>
{% endfor %}
</dl>
</article>
{% endfor %}
</section>
"""

FOOT = """<section>
<h2>What the fields are</h2>
<dl>{% for name, about in meanings.items() %}<dt>{{ name | replace("_", " ") }}</dt><dd>{{ about }}</dd>{% endfor %}</dl>
</section>
</main>
</body>
</html>
"""
