"""The names that users import from the modules, wherever what they name is defined."""

from __future__ import annotations

import importlib
import os

import pytest

NAMES = {
    "waitress": "serve serve_paste create_server profile logging",
    "waitress.adjustments": (
        "truthy KNOWN_PROXY_HEADERS asbool asoctal aslist_cronly aslist asset slash_fixed_str "
        "str_iftruthy as_socket_list _str_marker _int_marker AppResolutionError resolve_wsgi_app "
        "Adjustments HAS_IPV6 WIN PROXY_HEADERS getopt pkgutil socket warnings"
    ),
    "waitress.compat": (
        "WIN MAXINT HAS_IPV6 IPPROTO_IPV6 IPV6_V6ONLY platform socket sys warnings"
    ),
    "waitress.buffers": (
        "COPY_BYTES STRBUF_LIMIT BytesIO FileBasedBuffer TempfileBasedBuffer BytesIOBasedBuffer "
        "ReadOnlyFileBasedBuffer OverflowableBuffer"
    ),
    "waitress.channel": (
        "ClientDisconnected HTTPChannel OverflowableBuffer ReadOnlyFileBasedBuffer "
        "HTTPRequestParser ErrorTask WSGITask InternalServerError wasyncore socket threading time "
        "traceback"
    ),
    "waitress.parser": (
        "HTTPRequestParser ParsingError TransferEncodingNotImplemented SINGLETON_FIELDS "
        "unquote_bytes_to_wsgi split_uri get_header_lines crack_first_line first_line_re BytesIO "
        "OverflowableBuffer ChunkedReceiver FixedStreamReceiver HEADER_FIELD_RE ONLY_DIGIT_RE "
        "BadRequest RequestEntityTooLarge RequestHeaderFieldsTooLarge ServerNotImplemented "
        "find_double_newline unquote_to_bytes parse re"
    ),
    "waitress.receiver": (
        "FixedStreamReceiver ChunkedReceiver CHUNK_EXT_RE ONLY_HEXDIG_RE BadRequest "
        "find_double_newline"
    ),
    "waitress.rfc7230": (
        "HEXDIG DIGIT WS OWS RWS BWS TCHAR OBS_TEXT TOKEN VCHAR QDTEXT QUOTED_PAIR QUOTED_STRING "
        "FIELD_VCHAR FIELD_CONTENT FIELD_VALUE CHUNK_EXT_NAME CHUNK_EXT_VAL CHUNK_EXT "
        "ONLY_HEXDIG_RE ONLY_DIGIT_RE HEADER_FIELD_RE CHUNK_EXT_RE QUOTED_PAIR_RE QUOTED_STRING_RE"
    ),
    "waitress.runner": (
        "HELP show_help run serve Adjustments AppResolutionError logger getopt logging os sys "
        "traceback"
    ),
    "waitress.server": (
        "create_server MultiSocketServer BaseWSGIServer TcpWSGIServer WSGIServer Adjustments "
        "HTTPChannel IPPROTO_IPV6 IPV6_V6ONLY ThreadedTaskDispatcher cleanup_unix_socket "
        "proxy_headers_middleware trigger wasyncore os socket time"
    ),
    "waitress.proxy_headers": (
        "PROXY_HEADERS Forwarded MalformedProxyHeader proxy_headers_middleware "
        "parse_proxy_headers strip_brackets clear_untrusted_headers BadRequest logger undquote "
        "namedtuple"
    ),
    "waitress.task": (
        "rename_headers hop_by_hop ThreadedTaskDispatcher Task ErrorTask WSGITask "
        "ReadOnlyFileBasedBuffer build_http_date logger queue_logger deque sys threading time"
    ),
    "waitress.trigger": "_triggerbase trigger wasyncore errno os socket threading",
    "waitress.utilities": (
        "logger queue_logger find_double_newline concat join group short_days long_days months "
        "daymap monmap short_day_reg long_day_reg months_reg hms_reg rfc822_date rfc850_date "
        "rfc822_reg rfc850_reg unpack_rfc822 unpack_rfc850 weekdayname monthname build_http_date "
        "parse_http_date undquote cleanup_unix_socket"
    ),
    "waitress.wasyncore": (
        "EAGAIN EBADF ECONNABORTED ECONNRESET EINTR ENOTCONN EPIPE ESHUTDOWN EWOULDBLOCK "
        "_DISCONNECTED socket_map ExitNow _reraised_exceptions _strerror read write _exception "
        "readwrite poll poll2 poll3 loop compact_traceback dispatcher close_all logging os select "
        "socket sys time utilities warnings"
    ),
}
ON_POSIX = {
    "waitress.server": "UnixWSGIServer",
    "waitress.wasyncore": "file_wrapper file_dispatcher",
}


@pytest.mark.parametrize("module", NAMES)
def test_name_can_be_imported(module: str) -> None:
    names = NAMES[module].split()
    if os.name == "posix":
        names += ON_POSIX.get(module, "").split()
    found = importlib.import_module(module)
    assert [name for name in names if not hasattr(found, name)] == []
