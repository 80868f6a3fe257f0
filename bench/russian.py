"""The words of the answer in Russian, by the English ones. ``{}`` are filled in after that."""
# ruff: noqa: RUF001

RUSSIAN = {
    # needs
    "mostly pushes": "в основном отправки (push)",
    "many calls, and CPU is short": "много вызовов, а процессора мало",
    "calls that are answered soon": "вызовы, на которые отвечают быстро",
    "many calls, and the service's core is full": "много вызовов, а ядро сервиса занято",
    "many quiet connections": "много тихих соединений",
    "clients that come and go": "клиенты, которые приходят и уходят",
    "all clients come back at once": "все клиенты возвращаются разом",
    "clients that stop reading": "клиенты, которые перестают читать",
    "reloads that clients should see coming": "nginx перезагружают, и клиенты должны узнать об этом",
    # figures
    "CPU per call": "CPU на вызов",
    "round trip of a call, p50": "вызов туда и обратно, p50",
    "the service's CPU per call": "CPU сервиса на вызов",
    "CPU per delivery": "CPU на доставку",
    "memory per connection": "память на соединение",
    "CPU per handshake": "CPU на рукопожатие",
    "all are back after a cut": "все вернулись после обрыва",
    "memory for readers that stopped": "память на тех, кто не читает",
    "cut without a close frame": "оборваны без close-кадра",
    # units
    "µs": "мкс",
    "ms": "мс",
    "s": "с",
    "KiB": "КиБ",
    "MiB": "МиБ",
    # sentences
    "No conclusion: it takes at least two edges with {count} right rounds each.": (
        "Вывода нет: для него нужны хотя бы два режима nginx, по {count} верных раундов каждый."
    ),
    "**Take {first}, unless a line below is your case.** "
    "It is best, or not shown to be worse, for {wins} of the {count} needs below.": (
        "**Берите {first}, если ниже нет вашего случая.** "
        "Он лучший или не показан худшим в {wins} случаях из {count} ниже."
    ),
    "**{first}: the figures do not decide.** "
    "Each is best, or not shown to be worse, for {wins} of the {count} needs below.": (
        "**{first}: значения не решают.** Каждый лучший или не показан худшим в {wins} случаях из {count} ниже."
    ),
    "**{mode}** alone is best for: {needs}.": "**{mode}**, и только он, лучший, если у вас: {needs}.",
    "**{mode}** is alone the best for none of these.": "**{mode}** ни в одном из случаев не лучший в одиночку.",
    "Against no edge at all (direct) it costs: {costs}.": "Против работы без nginx (direct) он стоит: {costs}.",
    "{modes}: no difference that matters": "{modes}: разница ничего не значит",
    "{modes}: no difference that this run can show": "{modes}: разницы этот прогон показать не может",
    "against direct {times}": "против direct {times}",
    "or": "или",
    "mode": "режим",
    "you have": "у вас",
    "take": "берите",
    "what it takes": "сколько это",
    "the others": "остальные",
    # why there is no figure
    "no conclusion": "вывода нет",
    "no figure": "нет значения",
    "not measured": "не измерено",
    "only one edge was measured": "измерен только один вариант",
    "the load client was the limit": "пределом был клиент нагрузки",
    # where the figures are from
    "From [this run]({where}/report.md) (its folder has `report.html` with charts, and `raw.json`): begun {began}, "
    "rounds: {rounds}, {cpu}, cores: {cores}, commit {commit}.": (
        "Из [этого прогона]({where}/report.md) (в его папке `report.html` с графиками и `raw.json`): начат {began}, "
        "раундов: {rounds}, {cpu}, ядер: {cores}, коммит {commit}."
    ),
    "Median (least .. most); after it: times direct, pair by pair.": (
        "Медиана (наименьшее .. наибольшее); затем: во сколько раз больше direct, раунд к раунду."
    ),
}
