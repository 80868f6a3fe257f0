"""What the site does. ``who`` is all that the gateway needs of it."""

from __future__ import annotations

import json
from importlib import import_module

from django.conf import settings
from django.contrib.auth import authenticate, get_user, login, logout
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.cookie import parse_cookie
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.utils.html import format_html
from django.utils.safestring import mark_safe
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

GATEWAY = '""'  # its address, as JSON

PAGE = """<!doctype html><meta charset="utf-8"><title>Orders</title><link rel="icon" href="data:,">
<p>You are <b>{user}</b>. <form method="post" action="/logout/">{csrf}<button>Log out</button></form>
<p id="state">connecting</p><ul id="events"></ul>
<script>
  const socket = new WebSocket({gateway});
  const say = (text) => { document.getElementById('state').textContent = text; };
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === 'welcome') say('connected as ' + event.client);
    else document.getElementById('events').append(Object.assign(document.createElement('li'), { textContent: data }));
  };
  socket.onclose = ({ code }) => say('closed ' + code);
</script>"""

LOGIN = """<!doctype html><meta charset="utf-8"><title>Log in</title><link rel="icon" href="data:,">
<form method="post">{csrf}<input name="username" placeholder="user">
<input name="password" type="password" placeholder="password"><button>Log in</button></form>"""

sessions = import_module(settings.SESSION_ENGINE)


@csrf_exempt  # the gateway asks, not a page; and nothing is changed by it
@require_POST
def who(request: HttpRequest) -> HttpResponse:
    """Who the client is whose handshake has this cookie. ``get_user`` also looks whether the password is still the one
    of the login, so that who changes it is out everywhere."""
    cookie = json.loads(request.body)["headers"].get("cookie", "")
    request.session = sessions.SessionStore(parse_cookie(cookie).get(settings.SESSION_COOKIE_NAME))
    user = get_user(request)
    if not user.is_authenticated:
        return JsonResponse({}, status=401)
    groups = ["news", *(f"team.{group.name}" for group in user.groups.all())]
    end = request.session.get_expiry_date()
    return JsonResponse({"client": user.get_username(), "groups": groups, "expires": end.timestamp()})


@login_required
def page(request: HttpRequest) -> HttpResponse:
    text = PAGE.replace("{gateway}", GATEWAY).replace("{csrf}", _csrf(request))
    return HttpResponse(text.replace("{user}", format_html("{}", request.user.get_username())))


def log_in(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        user = authenticate(request, username=request.POST["username"], password=request.POST["password"])
        if user is not None:
            login(request, user)
            return redirect("/")
    return HttpResponse(LOGIN.replace("{csrf}", _csrf(request)))


@require_POST
def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect("/login/")


def _csrf(request: HttpRequest) -> str:
    return mark_safe(f'<input type="hidden" name="csrfmiddlewaretoken" value="{get_token(request)}">')
