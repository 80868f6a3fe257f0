import 'dart:async';
import 'dart:convert';

import 'command.dart';
import 'position.dart';
import 'socket.dart';
import 'socket_io.dart' if (dart.library.js_interop) 'socket_web.dart';

/// How a connection ended: a close code, or the status of a refused handshake, or neither.
typedef Ending = ({int? code, int? status, String message});

/// One attempt, and the connection that came of it. It ends once, and is never used again.
///
/// Liveness: a JSON ping each interval, since a browser cannot send control pings and an edge may answer the text
/// `ping` by itself. Silence is counted from a ping that was sent. A timer that comes late judges nobody, because the device may
/// have slept: what waits in the socket is read first, and a new ping is sent.
class Connection {
  Connection({required void Function(Connection, Json) onEvent, required void Function(Connection, Ending) onEnd})
      : _onEvent = onEvent,
        _onEnd = onEnd;

  static const _late = Duration(seconds: 2);

  final void Function(Connection, Json) _onEvent;
  final void Function(Connection, Ending) _onEnd;

  /// What the handshake named, and the number that each stream's subscription had then.
  late final Plan plan;
  late final Map<String, int> numbers;

  /// The streams that this connection is in, each with the number of the subscription that it is for; 0 is nobody's.
  final members = <String, int>{};

  /// Commands that were sent and have no answer, by their id.
  final pending = <int, Command>{};

  /// Since when it is welcomed; null before.
  DateTime? since;
  bool isOver = false;

  Socket? _socket;
  Timer? _limit;
  Timer? _beat;
  int _nextId = 1;
  bool _heard = false;
  bool _retiring = false;
  Duration _interval = Duration.zero;
  Duration _patience = Duration.zero;

  bool get isWelcomed => since != null;

  /// Ends it unless it is welcomed by then, whatever it waits for: a token, the handshake, or a word after the 101.
  void limit(Duration time) => _limit = Timer(time, () => fail('no welcome in time'));

  Future<void> open(Uri uri, List<String> protocols) async {
    final Socket socket;
    try {
      socket = await openSocket(uri, protocols);
    } on Refused catch (refused) {
      _end((code: null, status: refused.status, message: 'the handshake was answered with ${refused.status}'));
      return;
    } on Object catch (error) {
      fail('$error');
      return;
    }
    if (isOver) {
      socket.close();
      return;
    }
    _socket = socket;
    socket.messages.listen(
      _receive,
      onDone: () => _end((code: socket.closeCode, status: null, message: socket.closeReason ?? '')),
    );
  }

  void send(Command command) {
    final id = _nextId++;
    pending[id] = command;
    _socket?.send(command.text(id));
  }

  /// The welcome was taken: from now on the other side must answer each ping within [patience].
  void welcomed(Duration interval, Duration patience) {
    _limit?.cancel();
    since = DateTime.now();
    _interval = interval;
    _patience = patience;
    _in(interval, _ping);
  }

  /// Asks for a sign of life at once, such as after a pause.
  void probe(Duration patience) => _ping(patience);

  /// Another one has taken its place: it is closed when nothing is to be answered any more, [within] at most.
  void retire(Duration within) {
    _retiring = true;
    if (pending.isEmpty) {
      fail('moved');
    } else {
      Timer(within, () => fail('moved'));
    }
  }

  /// Ends it, and says so.
  void fail(String message) => _end((code: null, status: null, message: message));

  /// Ends it without a word.
  void drop() {
    if (isOver) return;
    isOver = true;
    _limit?.cancel();
    _beat?.cancel();
    _socket?.close();
  }

  void _end(Ending ending) {
    if (isOver) return;
    drop();
    _onEnd(this, ending);
  }

  void _receive(Object? text) {
    _heard = true;
    if (isOver || text is! String || !text.startsWith('{')) return; // the texts pong and Pong prove nothing
    final Json event;
    try {
      event = jsonDecode(text) as Json;
    } on FormatException {
      return;
    }
    final command = switch (event['type']) {
      'reply' || 'pong' || 'error' => pending.remove(event['id']),
      _ => null,
    };
    if (command == null) {
      _onEvent(this, event);
    } else if (event['type'] == 'error') {
      command.fail(CommandError('${event['code']}', '${event['message']}'));
    } else {
      command.succeed(event);
    }
    if (_retiring && pending.isEmpty) fail('moved');
  }

  void _ping([Duration? patience]) {
    if (isOver) return;
    _heard = false;
    _socket?.send('{"type":"ping","id":0}'); // ids of commands begin with 1
    _in(patience ?? _patience, () {
      if (_heard) {
        _in(_interval, _ping);
      } else {
        fail('no sign of life');
      }
    });
  }

  /// Runs [step] after [time], or a ping instead where that comes late.
  void _in(Duration time, void Function() step) {
    _beat?.cancel();
    final due = DateTime.now().add(time); // a monotonic clock may stand still while the device sleeps
    _beat = Timer(time, () {
      if (DateTime.now().difference(due) < _late) {
        step();
      } else {
        _beat = Timer(Duration.zero, _ping);
      }
    });
  }
}
