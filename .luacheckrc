-- What luacheck is told of the edge's code; tools/lint.sh tells it of the scripts that Redis runs.
std = "ngx_lua"
max_line_length = 120
