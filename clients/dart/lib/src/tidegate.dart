import 'dart:async';
import 'dart:math';

import 'command.dart';
import 'commands.dart';
import 'connection.dart';
import 'options.dart';
import 'position.dart';
import 'store.dart';
import 'streams.dart';
import 'subscription.dart';
import 'verdict.dart';

enum ClientState { disconnected, connecting, connected, closed }

/// A client of a Tidegate gateway. The machine is described in clients/README.md.
///
/// There is one connection that counts ([_main]): it is being opened, or it is welcomed. While the node moves, or to have
/// the own streams from an earlier position, another one is opened beside it, and takes its place at its welcome.
class Tidegate implements StreamsOwner, SubscriptionOwner {
  /// [url] such as `wss://example.org/ws-notifications/`. Connects in the next microtask unless `autoConnect` is false.
  Tidegate(this.url, [this.options = const Options()]) : client = options.client {
    if (options.autoConnect) {
      scheduleMicrotask(() {
        if (!_isTouched) connect();
      });
    }
  }

  final Uri url;
  final Options options;

  /// Who the client is: as the options say, or since the first welcome as the token says.
  @override
  String? client;

  late final _streams = Streams(this);
  late final _commands = Commands(options.answerTimeout);
  late final _store = Store(
    options.last ? null : options.storage, // cursor=last keeps no positions here
    options.storageKey,
    content: () => (client, _streams.stored),
    onError: _errors.add,
  );
  late final _backoff = Backoff(options.firstDelay, options.longestDelay);
  late final _besideBackoff = Backoff(options.firstDelay, const Duration(seconds: 2));
  final _states = StreamController<ClientState>.broadcast();
  final _errors = StreamController<Object>.broadcast();
  final _readies = <Completer<void>>[];

  ClientState _state = ClientState.disconnected;
  Reason? _reason;
  Connection? _main;
  Connection? _beside;
  final _retired = <Connection>{};
  DateTime? _switchBy; // when the node that moves will close
  Timer? _delay; // until the next attempt
  Timer? _besideDelay;
  DateTime _missingSince = DateTime.now();
  Future<void>? _restored;
  bool _isTouched = false; // by connect, disconnect or close
  bool _isFinished = false; // by close
  bool _isPaused = false;
  bool _isRefreshing = false;
  bool _wasUnauthorized = false; // the last answer was 401
  bool _hasAskedAtOnce = false; // since the last stable connection, after 4009
  int _groups = 100;

  // What an application sees

  ClientState get state => _state;

  /// Why it is `closed`, or of the last cut.
  Reason? get reason => _reason;

  /// Tells each new state, after [state] has it.
  Stream<ClientState> get states => _states.stream;

  /// What a handler without `onError` threw, and once what the storage threw.
  Stream<Object> get errors => _errors.stream;

  /// Messages that came twice and were dropped.
  int get duplicates => _streams.duplicates;

  /// Up to where everything has arrived, for each stream.
  Map<String, Position> get positions => _streams.received;

  /// Begins a subscription to a group.
  Subscription group(String name, Handlers handlers) => _subscribe('group:$name', handlers);

  /// Messages to this client alone.
  Subscription direct(Handlers handlers) => _subscribe('client', handlers);

  /// Messages to everybody.
  Subscription all(Handlers handlers) => _subscribe('all', handlers);

  void leave(String group) => _streams.tracks['group:$group']?.subscription?.leave();

  /// Completes when welcomed, and each group so far is joined or refused. Throws [CommandError] `closed`.
  Future<void> ready() {
    final ready = Completer<void>();
    _readies.add(ready);
    membersChanged();
    return ready.future;
  }

  /// Begins to connect, also after an end. Nothing happens where it connects already.
  void connect() {
    if (_isFinished) throw StateError('this client was closed');
    _isTouched = true;
    _isPaused = false;
    if (_state == ClientState.connecting || _state == ClientState.connected) return;
    _backoff.reset();
    _wasUnauthorized = _hasAskedAtOnce = false;
    _missingSince = DateTime.now();
    _enter(ClientState.connecting, null);
    unawaited(_attempt());
  }

  /// Closes the connection. Positions and subscriptions stay; [connect] goes on from there.
  void disconnect() {
    _isTouched = true;
    _isPaused = false;
    if (_state != ClientState.closed) _stop(ClientState.disconnected, null);
  }

  /// The end: nothing is told any more but the state.
  void close() {
    if (_isFinished) return;
    _isTouched = _isFinished = true;
    _stop(ClientState.closed, const Reason('done', message: 'closed here', again: false));
    _streams.stop();
  }

  /// The app goes to the background: the cursor is kept and the connection closed.
  void pause() {
    if (_state != ClientState.connecting && _state != ClientState.connected) return;
    _isTouched = true;
    _stop(ClientState.disconnected, null);
    _isPaused = true;
  }

  /// The app is back: connects at once, without a delay, or asks whether the connection still lives.
  void resume() => _isPaused ? connect() : wake();

  /// Something says that things may have changed, such as a network that came back.
  void wake() {
    if (_state == ClientState.connected) _main?.probe(const Duration(seconds: 5));
    if (_delay?.isActive ?? false) {
      _delay!.cancel();
      unawaited(_attempt());
    }
  }

  // Commands

  /// `{status, data}`. The application may have carried it out although this throws `unknown_outcome` or `timeout`.
  /// It gets [traceparent], the span that asks, as the header of this name.
  Future<Json> call(String method, [Object? data, String? traceparent]) => _command(
        {'type': 'call', 'method': method, 'data': data, if (traceparent != null) 'traceparent': traceparent},
        data: data,
      );

  /// With a [key], by default one made here, it is repeated after a cut and never doubled. With [keyed] false it is sent once.
  /// Of messages with the same word [conflate] slow connections get the newest.
  /// [traceparent] is the span that publishes.
  Future<Position> publish(
    String group,
    Object? data, {
    String? key,
    bool keyed = true,
    String? conflate,
    String? traceparent,
  }) async {
    final unique = keyed ? key ?? newKey() : key;
    final reply = await _command(
      {
        'type': 'publish',
        'group': group,
        'data': data,
        if (conflate != null) 'conflate': conflate,
        if (traceparent != null) 'traceparent': traceparent,
        if (unique != null) 'key': unique,
      },
      data: data,
      repeatable: unique != null,
    );
    return (epoch: reply['epoch'] as String, offset: reply['offset'] as int);
  }

  /// The answers of these two are as docs/protocol.md has them.
  Future<Json> history(String group, {Position? position, int? limit}) => _command(
        {
          'type': 'history',
          'group': group,
          if (position != null) ...{'epoch': position.epoch, 'offset': position.offset},
          if (limit != null) 'limit': limit,
        },
        repeatable: true,
      );

  Future<Json> presence(String group) => _command({'type': 'presence', 'group': group}, repeatable: true);

  /// When the new token ends, in Unix seconds.
  Future<int> refresh(String token) async =>
      (await _command({'type': 'refresh', 'token': token}))['expires'] as int;

  /// How long the answer took.
  Future<Duration> ping() async {
    final clock = Stopwatch()..start();
    await _command({'type': 'ping'});
    return clock.elapsed;
  }

  Future<Json> _command(Json body, {Object? data, bool repeatable = false}) {
    if (_state == ClientState.closed) return Future.error(CommandError('closed', '$_reason'));
    final connection = _state == ClientState.connected ? _main : null;
    return _commands.add(body, connection: connection, data: data, repeatable: repeatable);
  }

  // Attempts

  Future<void> _attempt({bool beside = false}) async {
    final connection = Connection(onEvent: _event, onEnd: _ended);
    if (beside) {
      _beside = connection;
    } else {
      _main = connection;
    }
    await (_restored ??= _restore());
    if (connection.isOver) return;
    connection.limit(options.welcomeTimeout);
    final String? token;
    try {
      token = await options.token?.get();
    } on NotAllowed catch (error) {
      if (!connection.isOver) _closeFor('not_allowed', error.message);
      return;
    } on Object catch (error) {
      connection.fail('no token: $error');
      return;
    }
    if (connection.isOver) return;
    if (options.token?.hasEnded ?? false) return _closeFor('token_expired', 'the token has ended');
    _isFor(token == null ? options.client : claimOf(token, 'sub'));
    await connection.open(_address(connection, token), ['tidegate.v1', if (token != null) 'bearer.$token']);
  }

  /// Positions are of one client. One that is not known yet changes nothing.
  void _isFor(Object? id) {
    if (id is! String) return;
    if (client != null && client != id) _streams.forget();
    client = id;
  }

  Uri _address(Connection connection, String? token) {
    final fixed = {
      ...url.queryParameters,
      if (token == null && options.client != null) 'client': options.client!,
      if (options.device != null) 'device': options.device!,
    };
    final taken = url.replace(queryParameters: {...fixed, 'cursor': '', 'groups': ''}).toString().length;
    connection
      ..numbers = _streams.numbers
      ..plan = _streams.plan(withPositions: !options.last, room: targetLimit - taken, most: _groups);
    final Plan(:cursor, :groups) = connection.plan;
    return url.replace(
      queryParameters: {
        ...fixed,
        if (groups.isNotEmpty) 'groups': groups.join(','),
        if (options.last) 'cursor': 'last' else if (cursor.isNotEmpty) 'cursor': encodeCursor(cursor),
      },
    );
  }

  void _event(Connection connection, Json event) {
    if (event case {'type': 'welcome', 'streams': final Json streams} when !connection.isWelcomed) {
      _welcome(connection, event, streams);
    } else if (connection == _main && connection.isWelcomed) {
      switch (event['type']) {
        case 'expiring':
          unawaited(_renewToken(connection));
        case 'moving':
          _moving((event['within'] as num?)?.toDouble() ?? 0);
        default:
          _streams.take(event);
          positionsMoved();
      }
    }
  }

  void _welcome(Connection connection, Json event, Json streams) {
    final old = connection == _beside ? _main : null;
    if (connection == _beside) {
      _beside = null;
      _main = connection;
    }
    if (event['limits'] case final Json limits) {
      _groups = limits['groups'] as int? ?? _groups;
      _commands.messageBytes = limits['message_bytes'] as int? ?? _commands.messageBytes;
      _commands.dataBytes = limits['data_bytes'] as int? ?? _commands.dataBytes;
    }
    _isFor(event['client']);
    _wasUnauthorized = false;
    _besideBackoff.reset();
    final interval = Duration(milliseconds: (min(25, event['ping_interval'] as num? ?? 25) * 1000).round());
    connection.welcomed(options.pingInterval ?? interval, options.pongTimeout);
    if (_state == ClientState.connecting) _enter(ClientState.connected, null);
    _streams.welcomed(connection, streams);
    if (old != null) {
      _retired.add(old);
      old.retire(_switchBy?.difference(DateTime.now()) ?? Duration.zero);
    }
    _switchBy = null;
    _commands.sendTo(connection);
    positionsMoved();
    membersChanged();
  }

  void _ended(Connection connection, Ending ending) {
    final wasMain = connection == _main;
    final wasBeside = connection == _beside;
    _streams.lost(connection);
    if (wasMain) _main = null;
    if (wasBeside) _beside = null;
    _retired.remove(connection);
    _commands.takeBack(connection);
    if (wasMain) _cut(connection, ending);
    final now = _state == ClientState.connected ? _main : null;
    if (now != null) _commands.sendTo(now); // what a retired one did not answer
    if (wasBeside) _besideDelay = Timer(_besideBackoff.next(), renew);
  }

  void _cut(Connection connection, Ending ending) {
    final (:code, :status, :message) = ending;
    final verdict = status == null ? verdictOfClose(code) : verdictOfStatus(status);
    final now = DateTime.now();
    final since = connection.since;
    if (since != null) _missingSince = now;
    if (since != null && now.difference(since) >= options.stable) {
      _backoff.reset();
      _hasAskedAtOnce = false;
    }
    if (verdict.word case final String word) return _closeFor(word, message, code ?? status);
    var kind = verdict.delay;
    if (verdict.token) {
      if (options.token?.isFixed ?? false) return _closeFor('token_expired', message, code ?? status);
      if (status == 401 && (options.token == null || _wasUnauthorized)) {
        return _closeFor('unauthorized', message, status);
      }
      _wasUnauthorized = status == 401;
      if (status == null && !_hasAskedAtOnce) kind = Delay.none;
      _hasAskedAtOnce = true;
    }
    final patience = options.giveUpAfter;
    if (patience != null && now.difference(_missingSince) >= patience) return _closeFor('unreachable', message, code);
    final delay = _backoff.next(kind);
    _main = _beside; // one that is on its way already
    _beside = null;
    _delay?.cancel();
    if (_main == null) _delay = Timer(delay, () => unawaited(_attempt()));
    _enter(ClientState.connecting, Reason('cut', message: message, again: true, code: code ?? status));
  }

  void _closeFor(String word, String message, [int? code]) =>
      _stop(ClientState.closed, Reason(word, message: message, again: false, code: code));

  void _stop(ClientState state, Reason? reason) {
    _delay?.cancel();
    _besideDelay?.cancel();
    final connections = [_main, _beside, ..._retired].nonNulls.toList();
    _main = _beside = _switchBy = null;
    _retired.clear();
    _state = state;
    for (final connection in connections) {
      connection.drop();
      _streams.lost(connection);
      _commands.takeBack(connection);
    }
    if (state == ClientState.closed) _commands.close();
    _store.flush();
    _enter(state, reason);
  }

  void _enter(ClientState state, Reason? reason) {
    _state = state;
    _reason = reason;
    _states.add(state);
    membersChanged();
  }

  /// The node stops: make before break.
  void _moving(double withinS) {
    _switchBy = DateTime.now().add(Duration(milliseconds: (withinS * 1000).round()));
    renew();
  }

  @override
  void renew() {
    if (_state != ClientState.connected || _beside != null) return;
    unawaited(_attempt(beside: true));
  }

  /// One chain: it ends with a token that was taken, one that was refused, or the connection.
  Future<void> _renewToken(Connection connection) async {
    final token = options.token;
    if (_isRefreshing || token == null || token.isFixed) return;
    _isRefreshing = true;
    final backoff = Backoff(options.firstDelay, options.longestDelay);
    while (connection == _main) {
      try {
        final fresh = await token.get();
        if (connection != _main) break;
        await refresh(fresh);
        break;
      } on NotAllowed catch (error) {
        if (connection == _main) _closeFor('not_allowed', error.message);
      } on Object catch (error) {
        if (error is CommandError && ['unauthorized', 'not_allowed'].contains(error.code)) break; // 4009 decides
        await Future<void>.delayed(backoff.next());
      }
    }
    _isRefreshing = false;
  }

  // For the streams and subscriptions

  Subscription _subscribe(String key, Handlers handlers) {
    if (_isFinished) throw StateError('this client was closed');
    return Subscription(this, key, handlers)..join();
  }

  @override
  int get queueLimit => options.queueLimit;

  @override
  void wished(Subscription subscription) {
    final track = _streams.track(subscription.key);
    if (subscription.isWanted) {
      if (track.isWanted && track.subscription != subscription) {
        subscription.stop();
        throw StateError('${subscription.key} has a handler already');
      }
      track.subscription = subscription;
      if (track.isGroup && subscription.handlers.state != null) track.received = null;
    } else {
      track
        ..received = null
        ..done = null
        ..mustRejoin = false;
      positionsMoved();
    }
    _streams.reconcile(track);
    membersChanged();
  }

  @override
  void rejoin(Subscription subscription, Position? position) {
    final track = _streams.track(subscription.key);
    track
      ..received = position
      ..mustRejoin = true
      ..isPassing = true;
    _streams.reconcile(track);
  }

  @override
  void done(Subscription subscription, Position position) {
    _streams.track(subscription.key).done = position;
    positionsMoved();
  }

  @override
  void report(Subscription subscription, Object error, StackTrace trace) {
    final onError = subscription.handlers.onError;
    if (onError == null && _errors.hasListener) return _errors.add(error);
    try {
      if (onError == null) throw error;
      onError(error, trace);
    } on Object catch (last, lastTrace) {
      Zone.current.handleUncaughtError(last, last == error ? trace : lastTrace);
    }
  }

  @override
  void order(Connection connection, Json body, void Function(Json) onReply, void Function(CommandError) onError) {
    final command = Command(body, repeatable: false, onReply: onReply, onError: onError);
    // No answer to a join or a leave means that nothing passes there any more.
    command.deadline = Timer(options.answerTimeout, () => connection.fail('no answer to ${body['type']}'));
    connection.send(command);
  }

  @override
  void later(void Function() step) => Timer(Backoff(options.firstDelay, options.longestDelay).next(), step);

  @override
  void membersChanged() {
    final isClosed = _state == ClientState.closed;
    if (!isClosed && !(_state == ClientState.connected && _streams.isSettled)) return;
    final readies = [..._readies];
    _readies.clear();
    for (final ready in readies) {
      isClosed ? ready.completeError(CommandError('closed', '$_reason')) : ready.complete();
    }
  }

  @override
  void positionsMoved() => _store.moved();

  Future<void> _restore() async {
    final stored = await _store.read();
    if (stored == null) return;
    final (owner, positions) = stored;
    if (client != null && client != owner) return;
    client = owner;
    _streams.restore(positions);
  }
}
