import 'dart:async';
import 'dart:collection';

import 'event.dart';
import 'position.dart';
import 'verdict.dart';

/// What an application does with a stream. Meanings: clients/README.md.
class Handlers {
  const Handlers({required this.onMessage, this.onGap, this.onJoined, this.onLeft, this.onError, this.state});

  final FutureOr<void> Function(Message message) onMessage;
  final FutureOr<void> Function(Gap gap)? onGap;
  final void Function(Joined joined)? onJoined;
  final void Function(Left left)? onLeft;
  final void Function(Object error, StackTrace trace)? onError;

  /// Loads the data that the messages change; gives the position that its server read before the data, or null.
  final FutureOr<Position?> Function()? state;
}

/// What a subscription asks of the client.
abstract interface class SubscriptionOwner {
  int get queueLimit;
  void wished(Subscription subscription);

  /// From [position] on, or from now on where it is null.
  void rejoin(Subscription subscription, Position? position);

  /// The handler is done with everything up to [position].
  void done(Subscription subscription, Position position);
  void report(Subscription subscription, Object error, StackTrace trace);
}

typedef _Entry = ({Event event, Position after});

/// One handler's view of a stream. Its handlers run one after the other, and no more once it was left.
class Subscription {
  Subscription(this._owner, this.key, this.handlers);

  final SubscriptionOwner _owner;

  /// `group:<name>`, `client` or `all`.
  final String key;
  final Handlers handlers;

  /// Another one after each [join] and [leave]: an answer to an older one changes nothing.
  int number = 0;
  bool isWanted = false;

  /// The application left; otherwise it was ended from outside, and the server may begin it again.
  bool isLeft = false;

  final _queue = Queue<_Entry>();
  bool _isRunning = false;
  bool _overflowed = false;

  // State, then stream.
  bool _isHolding = false;
  bool _mustLoad = false;
  int _loads = 0; // a result of an older one is void
  Position? _heldFrom;
  Position? _upTo; // what the state has already
  Timer? _retry;
  late final _backoff = Backoff(const Duration(milliseconds: 500), const Duration(seconds: 30));

  static int _numbers = 0;

  String? get group => groupOf(key);

  bool get isFull => _queue.length >= _owner.queueLimit;
  bool get isHolding => _isHolding;

  /// Begins it, or begins it again after [leave] or `onLeft`, from now on.
  void join() {
    if (isWanted) return;
    begin();
    _owner.wished(this);
  }

  void leave() {
    if (!isWanted && isLeft) return;
    stop();
    isLeft = true;
    _owner.wished(this);
  }

  void begin() {
    number = ++_numbers;
    isWanted = true;
    isLeft = false;
    _isHolding = _mustLoad = handlers.state != null;
  }

  /// Nothing is told any more.
  void stop() {
    number = ++_numbers;
    isWanted = false;
    _forget();
  }

  void _forget() {
    _queue.clear();
    _retry?.cancel();
    _loads += 1;
    _upTo = null;
    _overflowed = false;
  }

  /// It is joined, and goes on behind [position].
  void begun(Position position, Joined joined) {
    _overflowed = false;
    if (_queue.isEmpty && !_isRunning) _owner.done(this, position);
    if (_mustLoad) {
      _mustLoad = false;
      _hold(position);
    }
    _guarded(() => handlers.onJoined?.call(joined));
  }

  /// It was ended from outside. What has arrived is still dealt with.
  void ended(String reason, String stream) {
    isWanted = false;
    _guarded(() => handlers.onLeft?.call(Left(stream, reason)));
  }

  /// Whether the state must be loaded anew. What was skipped need not: newer messages follow.
  bool _isLoss(Event event) => event is Gap && event.reason != 'skipped';

  /// [event] has arrived; [after] is the position behind it.
  void add(Event event, Position after) {
    if (_isLoss(event) && _isHolding) {
      // The state that is being loaded would be void, and the next one has what is held.
      _forget();
      _isHolding = false;
    }
    _queue.add((event: event, after: after));
    unawaited(_run());
  }

  /// Too much is waiting: no more is taken until half of it is done.
  void overflow() => _overflowed = true;

  /// Too much was held: it begins anew, with a fresh position.
  void restart() {
    _forget();
    _isHolding = _mustLoad = true;
    _owner.rejoin(this, null);
  }

  Future<void> _run() async {
    if (_isRunning) return;
    _isRunning = true;
    while (_queue.isNotEmpty && !_isHolding) {
      final (:event, :after) = _queue.removeFirst();
      final mine = number;
      await _tell(event);
      if (mine != number) continue; // left, and perhaps joined again, inside the handler
      _owner.done(this, after);
      if (_isLoss(event) && handlers.state != null) _hold(after);
      if (_overflowed && _queue.length <= _owner.queueLimit ~/ 2) {
        _overflowed = false;
        _owner.rejoin(this, _queue.isEmpty ? after : _queue.last.after);
      }
    }
    _isRunning = false;
  }

  /// A handler that throws has dealt with its message.
  Future<void> _tell(Event event) async {
    try {
      switch (event) {
        case final Message message when !_isInState(message):
          await handlers.onMessage(message);
        case final Gap gap:
          if (_isLoss(gap)) _upTo = null;
          await handlers.onGap?.call(gap);
        default:
          break;
      }
    } on Object catch (error, trace) {
      _owner.report(this, error, trace);
    }
  }

  void _guarded(void Function() tell) {
    try {
      tell();
    } on Object catch (error, trace) {
      _owner.report(this, error, trace);
    }
  }

  bool _isInState(Message message) {
    final upTo = _upTo;
    return upTo != null && message.epoch == upTo.epoch && message.offset <= upTo.offset;
  }

  void _hold(Position position) {
    _isHolding = true;
    _heldFrom = position;
    _backoff.reset();
    unawaited(_load());
  }

  Future<void> _load() async {
    final load = ++_loads;
    final Position? position;
    try {
      position = await handlers.state!();
    } on Object catch (error, trace) {
      if (load != _loads) return;
      _owner.report(this, error, trace);
      _retry = Timer(_backoff.next(), () => unawaited(_load()));
      return;
    }
    if (load != _loads) return;
    _isHolding = false;
    if (position != null && _reaches(position)) {
      _upTo = position;
    } else if (position != null) {
      _queue.clear();
      _owner.rejoin(this, position);
    }
    unawaited(_run());
  }

  /// Whether what is held begins at [position] or before it.
  bool _reaches(Position position) {
    final from = _heldFrom;
    return from != null && from.epoch == position.epoch && from.offset <= position.offset;
  }
}
