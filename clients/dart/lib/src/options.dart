import 'dart:async';
import 'dart:convert';

/// A [Token.from] throws this where the user may not connect, or no longer. That is an end.
class NotAllowed implements Exception {
  const NotAllowed([this.message = 'the application says that this user may not']);

  final String message;
}

/// Says who the client is, where the gateway asks.
class Token {
  /// One that stays the same. When it has ended the client is closed: `token_expired`.
  Token.fixed(String this._text) : _ask = null;

  /// Asked before each attempt, and again before the token ends. Null is the same as [NotAllowed].
  Token.from(FutureOr<String?> Function() this._ask) : _text = null;

  final String? _text;
  final FutureOr<String?> Function()? _ask;

  bool get isFixed => _ask == null;

  /// It is fixed and has ended, as far as it can be read.
  bool get hasEnded {
    final text = _text;
    final exp = text == null ? null : claimOf(text, 'exp');
    return exp is num && exp * 1000 < DateTime.now().millisecondsSinceEpoch;
  }

  Future<String> get() async => _text ?? await _ask!() ?? (throw const NotAllowed());
}

/// A claim of a JWT; null where it cannot be read. Nothing is verified here.
Object? claimOf(String token, String name) {
  try {
    final payload = token.split('.')[1];
    final claims = jsonDecode(utf8.decode(base64Url.decode(base64Url.normalize(payload))));
    return (claims as Map<String, Object?>)[name];
  } on Object {
    return null;
  }
}

/// Where positions are kept beyond this process, such as SharedPreferences. May throw: the client goes on without.
abstract interface class Storage {
  FutureOr<String?> getItem(String key);
  FutureOr<void> setItem(String key, String value);
  FutureOr<void> removeItem(String key);
}

/// What they mean: clients/README.md.
class Options {
  const Options({
    this.token,
    this.client,
    this.device,
    this.last = false,
    this.storage,
    this.storageKey = 'tidegate',
    this.autoConnect = true,
    this.welcomeTimeout = const Duration(seconds: 10),
    this.answerTimeout = const Duration(seconds: 10),
    this.pingInterval,
    this.pongTimeout = const Duration(seconds: 10),
    this.firstDelay = const Duration(milliseconds: 500),
    this.longestDelay = const Duration(seconds: 30),
    this.stable = const Duration(seconds: 10),
    this.giveUpAfter,
    this.queueLimit = 1000,
  });

  final Token? token;
  final String? client;
  final String? device;
  final bool last;
  final Storage? storage;
  final String storageKey;
  final bool autoConnect;
  final Duration welcomeTimeout;
  final Duration answerTimeout;

  /// Null is the smaller of 25 s and what the gateway says.
  final Duration? pingInterval;
  final Duration pongTimeout;
  final Duration firstDelay;
  final Duration longestDelay;
  final Duration stable;

  /// Null is never.
  final Duration? giveUpAfter;
  final int queueLimit;
}
