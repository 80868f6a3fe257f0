"""The Lua of the OpenResty edge by itself, in an nginx with Debian's lua module: what its parts make of bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.edges.edge import NGINX, Edge, ask
from tests.support import Process, free_port
from tidegate.nginx import render

ALLOW = ["echo", "orders.create"]
DATA_BYTES = 1024

# Runs the code in a header over each of the texts in the body; what it gives comes back in the same form.
_CONFIGURATION = """
include modules_openresty.inc;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{}}
http {{
    include http.inc;
    access_log off;
    lua_package_path "{folder}/lua/?.lua;;";
    lua_shared_dict tidegate_nodes 256k;
    lua_shared_dict tidegate_metrics 256k;
    lua_socket_log_errors off;
    include openresty_settings.inc;
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 8m;
        client_body_buffer_size 8m;
        location / {{
            content_by_lua_block {{
                ngx.req.read_body()
                local run = assert(loadstring("local text = ...; " .. ngx.req.get_headers()["x-code"]))
                local body, at, answers = ngx.req.get_body_data(), 1, {{}}
                while at <= #body do
                    local stop = body:find(":", at, true)
                    local size = tonumber(body:sub(at, stop - 1))
                    local answer = tostring(run(body:sub(stop + 1, stop + size)))
                    answers[#answers + 1] = #answer .. ":" .. answer
                    at = stop + size + 1
                end
                local answer = table.concat(answers)
                ngx.header["Content-Length"] = #answer
                ngx.print(answer)
            }}
        }}
    }}
}}
"""


class Lua:
    """nginx with the edge's modules; ``run(code, texts)`` gives what ``code`` makes of each text."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        """``settings`` as the environment names them."""
        self.folder = folder
        self.port = free_port()
        edge = Edge(
            "openresty",
            folder,
            {"CALLS__ALLOW": ALLOW, "LIMITS__DATA_BYTES": DATA_BYTES, "LIMITS__JSON_DEPTH": 8} | settings,
        )
        render.write(edge.config, folder)
        (folder / "run").mkdir()
        file = folder / "conf.d/test.conf"
        file.write_text(_CONFIGURATION.format(folder=folder, port=self.port))
        self.process = Process(NGINX, "-e", "stderr", "-c", file, "-g", "daemon off;", folder=folder / "run")

    async def run(self, code: str, texts: list[bytes]) -> list[bytes]:
        body = b"".join(b"%d:%b" % (len(text), text) for text in texts)
        rest = (await ask(self.port, "POST", "/", {"X-Code": code}, body)).body
        answers = []
        while rest:
            size, _, rest = rest.partition(b":")
            answers.append(rest[: int(size)])
            rest = rest[int(size) :]
        assert len(answers) == len(texts), self.process.stderr
        return answers
