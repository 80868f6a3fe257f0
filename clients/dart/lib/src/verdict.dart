import 'dart:math';

/// How long to wait before one comes back.
enum Delay {
  /// Not at all.
  none,

  /// Random, and longer with each failure.
  growing,

  /// A few seconds at random, even the first time: a node sends everybody away at once.
  random,

  /// Half a minute or so.
  longer,
}

/// What an end means for coming back: either a [delay], perhaps with a new [token], or a [word] for good.
class Verdict {
  const Verdict.again(this.delay, {this.token = false}) : word = null;
  const Verdict.end(String this.word)
      : delay = Delay.none,
        token = false;

  final String? word;
  final Delay delay;
  final bool token;
}

/// Source: docs/protocol.md, Close codes.
const closes = <int, Verdict>{
  1000: Verdict.end('done'),
  1001: Verdict.again(Delay.random),
  1002: Verdict.end('protocol'),
  1003: Verdict.end('protocol'),
  1005: Verdict.again(Delay.growing),
  1006: Verdict.again(Delay.growing),
  1007: Verdict.end('protocol'),
  1009: Verdict.end('too_large'),
  1011: Verdict.again(Delay.growing),
  1012: Verdict.again(Delay.random),
  1013: Verdict.again(Delay.longer),
  4007: Verdict.again(Delay.growing),
  4008: Verdict.again(Delay.growing),
  4009: Verdict.again(Delay.growing, token: true),
  4500: Verdict.end('not_understood'),
  4501: Verdict.end('disconnected'),
  4502: Verdict.end('taken_over'),
};

/// Codes that nobody knows yet: from here on something must change before one comes back.
const changeFirstFrom = 4500;

/// HTTP statuses of a refused handshake; all others mean come back. Source: docs/protocol.md, When the handshake is refused.
const refusals = <int, Verdict>{
  400: Verdict.end('refused'),
  401: Verdict.again(Delay.growing, token: true),
  403: Verdict.end('refused'),
  404: Verdict.end('refused'),
  405: Verdict.end('refused'),
  426: Verdict.end('refused'),
  429: Verdict.again(Delay.longer), // its Retry-After is not shown to us
  503: Verdict.again(Delay.growing), // and neither is this one's; another node may take us sooner
};

/// Null is a connection that was cut without a close frame.
Verdict verdictOfClose(int? code) =>
    closes[code] ??
    (code != null && code >= changeFirstFrom ? const Verdict.end('code') : const Verdict.again(Delay.growing));

Verdict verdictOfStatus(int status) => refusals[status] ?? const Verdict.again(Delay.growing);

/// Why a connection ended. [again]: the client comes back by itself.
class Reason {
  const Reason(this.word, {required this.message, required this.again, this.code});

  /// One of clients/README.md, or `cut`.
  final String word;

  /// For people.
  final String message;
  final bool again;

  /// The close code or the HTTP status, where there was one.
  final int? code;

  @override
  String toString() => '$word: $message';
}

/// A random number between 0 and 1. The driver sets another one, so that delays can be foreseen.
double Function() chance = Random().nextDouble;

/// Delays that grow with each failure, up to [longest], and always by chance.
class Backoff {
  Backoff(this.first, this.longest);

  final Duration first;
  final Duration longest;
  int _failures = 0;

  void reset() => _failures = 0;

  Duration next([Delay kind = Delay.growing]) {
    final isFirst = _failures == 0;
    final ceiling = min(longest.inMilliseconds, first.inMilliseconds * pow(2, min(_failures, 20)).toInt());
    _failures += 1;
    return switch (kind) {
      Delay.none => Duration.zero,
      Delay.random when isFirst => _between(0, 5000),
      Delay.longer => _between(30000, 60000),
      Delay.random || Delay.growing => _between(0, ceiling),
    };
  }

  Duration _between(int least, int most) =>
      Duration(milliseconds: least + (chance() * (most - least)).round());
}
