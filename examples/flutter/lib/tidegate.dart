import 'dart:async';
import 'dart:convert';
import 'dart:math';

import 'package:shared_preferences/shared_preferences.dart';
import 'package:websocket_universal/websocket_universal.dart';

import 'tidegate_socket.dart';

enum Phase { idle, connecting, open, waiting, ended }

/// Where the connection stands. [wait] goes with [Phase.waiting], [code] and [reason] with [Phase.ended].
class Status {
  const Status(this.phase, {this.wait, this.code, this.reason});

  final Phase phase;
  final Duration? wait;
  final int? code;
  final String? reason;
}

/// A message, or what can no longer be delivered.
sealed class Entry {
  const Entry(this.stream);

  final String stream;
}

class Message extends Entry {
  const Message(super.stream, this.offset, this.time, this.data, {required this.missed});

  final int offset;
  final DateTime time;
  final Object? data;

  /// Whether it was pushed while we were away.
  final bool missed;
}

/// Offsets [from] to [to], both inclusive, are lost; both are null after a reset.
class Gap extends Entry {
  const Gap(super.stream, this.from, this.to, this.reason);

  final int? from;
  final int? to;
  final String reason;
}

/// One client's connection to Tidegate, from [start] to [stop]: reconnects with its cursor after a random wait.
///
/// websocket_universal sends the text pings and measures the delay. Its own reconnection is not used: it would
/// dial the same URL for ever, and the cursor is in the URL. Here each connection is a new object.
class Tidegate {
  Tidegate(this.url, {required this.client, required this.group, this.token});

  /// Such as `ws://127.0.0.1:8000/ws-notifications/`.
  final Uri url;
  final String client;

  /// May be empty.
  final String group;

  /// Gives a token, where the gateway wants one (`auth.mode: jwt`). Asked before each attempt: after 4009 the last one
  /// is of no use.
  final Future<String> Function()? token;

  static const _overloaded = 1013;
  static const _overloadedWaitMs = 30000; // and up to as long again
  static const _longestWaitMs = 30000;

  final _statuses = StreamController<Status>.broadcast();
  final _delays = StreamController<int>.broadcast();
  final _entries = StreamController<Entry>.broadcast();
  final _stopped = Completer<void>();
  final _store = SharedPreferencesAsync();
  final _random = Random();
  Map<String, dynamic> _cursor = {}; // stream: [epoch, offset], all of which has been seen
  final Map<String, (String, int)> _missedUpTo = {}; // stream: epoch and offset up to which messages come late
  Future<void> _saving = Future<void>.value();
  bool _isToBeSaved = false;
  int _attempt = 0;

  Stream<Status> get statuses => _statuses.stream;

  /// Milliseconds from a text ping to its pong, smoothed.
  Stream<int> get delays => _delays.stream;
  Stream<Entry> get entries => _entries.stream;

  String get _storageKey => 'tidegate.cursor.$client.$group';

  /// Completes when [stop] was called, or when the gateway said not to come back, and the cursor is stored. To be called
  /// once.
  Future<void> start() async {
    _cursor = jsonDecode(await _store.getString(_storageKey) ?? '{}') as Map<String, dynamic>;
    await _stay();
    await _saving;
  }

  Future<void> _stay() async {
    while (!_stopped.isCompleted) {
      _statuses.add(const Status(Phase.connecting));
      final socket = TidegateSocket();
      final protocols = await _protocols();
      if (_stopped.isCompleted) break;
      if (protocols != null) await _connection(socket, protocols);
      if (_stopped.isCompleted) break;
      final code = socket.closeCode;
      if (_isFinal(code)) {
        _statuses.add(Status(Phase.ended, code: code, reason: socket.closeReason));
        return;
      }
      final wait = _nextWait(code);
      _statuses.add(Status(Phase.waiting, wait: wait));
      await Future.any([Future<void>.delayed(wait), _stopped.future]);
    }
    _statuses.add(const Status(Phase.idle));
  }

  void stop() {
    if (!_stopped.isCompleted) _stopped.complete();
  }

  /// After these, coming back would change nothing.
  static bool _isFinal(int? code) =>
      code != null && ([1000, 1002, 1003, 1007, 1009].contains(code) || code >= 4500);

  /// Random from the first attempt on: when a node stops, all its clients are here at the same moment.
  Duration _nextWait(int? code) {
    _attempt = min(_attempt + 1, 10);
    final waitMs = code == _overloaded
        ? _overloadedWaitMs + _random.nextInt(_overloadedWaitMs)
        : _random.nextInt(min(_longestWaitMs, 1000 << _attempt));
    return Duration(milliseconds: waitMs);
  }

  /// What is offered to the gateway; null where there is no token for now.
  Future<List<String>?> _protocols() async {
    final token = this.token;
    if (token == null) return ['tidegate.v1'];
    try {
      return ['tidegate.v1', 'bearer.${await token()}'];
    } on Exception {
      return null; // as any attempt that failed
    }
  }

  /// Returns when this connection has ended, could not be made, or is no longer wanted.
  Future<void> _connection(TidegateSocket socket, List<String> protocols) async {
    final service = WebSocketBaseService<String, String>(
      connectUrlBase: _address.toString(),
      messageProcessor: SocketSimpleTextProcessor(),
      timeoutConnectionMs: 10000,
      pingIntervalMs: 5000,
      disconnectPingTimeoutMs: 10000,
      platformWebsocket: socket,
    );
    final given = Completer<void>(); // by the package: no pong, or no connection
    final subscriptions = [
      service.incomingMessagesStream.listen((text) => _take(jsonDecode(text) as Map<String, dynamic>)),
      service.logEventStream
          .where((event) => event.socketLogEventType == SocketLogEventType.pong)
          .listen((event) => _delays.add(event.pingMs)),
      service.socketStateStream
          .where((state) => state.status == SocketStatus.disconnected && !given.isCompleted)
          .listen((_) => given.complete()),
    ];
    await service.connect(params: SocketOptionalParams(protocols: protocols));
    await Future.any([socket.ended, given.future, _stopped.future]);
    for (final subscription in subscriptions) {
      await subscription.cancel();
    }
    service.close();
  }

  Uri get _address => url.replace(
        queryParameters: {
          if (token == null) 'client': client,
          if (group.isNotEmpty) 'groups': group,
          if (_cursor.isNotEmpty)
            'cursor': base64Url.encode(utf8.encode(jsonEncode(_cursor))).replaceAll('=', ''),
        },
      );

  void _take(Map<String, dynamic> event) {
    switch (event) {
      case {'type': 'welcome', 'streams': final Map<String, dynamic> streams}:
        _welcome(streams);
      case {'type': 'message', 'stream': final String stream, 'epoch': final String epoch, 'offset': final int offset}:
        _cursor[stream] = [epoch, offset];
        final time = DateTime.fromMillisecondsSinceEpoch(event['time'] as int);
        final upTo = _missedUpTo[stream];
        final missed = upTo != null && epoch == upTo.$1 && offset <= upTo.$2;
        _entries.add(Message(stream, offset, time, event['data'], missed: missed));
      case {'type': 'gap', 'stream': final String stream, 'epoch': final String epoch, 'reason': final String reason}:
        final to = event['to'] as int?;
        if (to != null) {
          _cursor[stream] = [epoch, to];
        } else if ((_cursor[stream] as List<dynamic>?)?.first != epoch) {
          _cursor[stream] = [epoch, 0];
        }
        _entries.add(Gap(stream, event['from'] as int?, to, reason));
      case {'type': 'joined', 'stream': final String stream, 'epoch': final String epoch, 'offset': final int offset}:
        _cursor[stream] = [epoch, offset];
      case {'type': 'left', 'stream': final String stream}:
        _cursor.remove(stream);
    }
    _save();
  }

  /// One after the other, or an older cursor might be stored last. Of those that wait for their turn one is enough: it
  /// stores what is newest then.
  void _save() {
    if (_isToBeSaved) return;
    _isToBeSaved = true;
    _saving = _saving.then((_) async {
      _isToBeSaved = false;
      try {
        await _store.setString(_storageKey, jsonEncode(_cursor));
      } on Exception {
        // The next event tries again. Should there be none, what came since the last one comes again.
      }
    });
  }

  void _welcome(Map<String, dynamic> streams) {
    _attempt = 0;
    _cursor = {};
    _missedUpTo.clear();
    for (final MapEntry(key: stream, value: at) in streams.entries) {
      _cursor[stream] = [at['epoch'], at['offset']];
      if ((at['missed'] as int? ?? 0) > 0) _missedUpTo[stream] = (at['epoch'] as String, at['top'] as int);
    }
    _statuses.add(const Status(Phase.open));
  }
}
