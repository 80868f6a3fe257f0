import 'command.dart';
import 'connection.dart';
import 'event.dart';
import 'position.dart';
import 'subscription.dart';

/// Errors of a join that is worth repeating.
const _passing = {'broker_down', 'too_fast', 'full'};

/// One stream: how far it has come here, and who hears it.
class Track {
  Track(this.key);

  final String key;
  Subscription? subscription;

  /// Everything up to here has arrived.
  Position? received;

  /// The handler is done with everything up to here.
  Position? done;

  /// A reset left the next offset open: whatever comes is taken.
  bool isOpen = false;

  /// What comes is passed over until a join is answered, or the next welcome: it comes again.
  bool isPassing = false;

  /// A message came that nobody heard.
  bool hasDropped = false;

  /// It is to be joined once more, behind [received].
  bool mustRejoin = false;

  /// A join or leave is under way. One at a time, then what was wished last.
  bool isBusy = false;

  /// Up to here, messages are what was missed.
  Position? missedUpTo;

  bool get isGroup => groupOf(key) != null;
  bool get isWanted => subscription?.isWanted ?? false;
  int get number => subscription?.number ?? 0;
}

/// What [Streams] needs of the client.
abstract interface class StreamsOwner {
  String? get client;

  /// On this connection alone; a cut ends it.
  void order(Connection connection, Json body, void Function(Json) onReply, void Function(CommandError) onError);

  /// A new connection beside this one: what the gateway sends of its own accord begins only with a connection.
  void renew();

  /// Later, at random: the gateway could not do it now.
  void later(void Function() step);
  void positionsMoved();
  void membersChanged();
}

/// All streams of a client: takes what comes, in order and once, and joins and leaves as was wished.
class Streams {
  Streams(this._owner);

  final StreamsOwner _owner;
  final tracks = <String, Track>{};

  /// Duplicates that were dropped.
  int duplicates = 0;

  Connection? _connection; // the one whose events count

  /// The client's own stream is `client` here, whoever it turns out to be.
  static String keyOf(String stream) => stream.startsWith('client:') ? 'client' : stream;

  Track track(String key) => tracks[key] ??= Track(key);

  // Before a connection

  Plan plan({required bool withPositions, required int room, required int most}) {
    final client = _owner.client;
    final own = <String, Position>{};
    final groups = <String, Position?>{};
    for (final track in tracks.values) {
      final received = withPositions ? track.received : null;
      if (track.isGroup && track.isWanted) groups[track.key] = received;
      if (track.isGroup || received == null) continue;
      if (track.key == 'all') own['all'] = received;
      if (track.key == 'client' && client != null) own['client:$client'] = received;
    }
    return Plan(own: own, groups: groups, room: room, most: most);
  }

  Map<String, int> get numbers => {
        for (final track in tracks.values)
          if (track.isWanted) track.key: track.number,
      };

  /// Another client has come: its streams are others, and nothing of the last one's is taken over.
  void forget() {
    for (final track in tracks.values) {
      track
        ..received = null
        ..done = null;
    }
  }

  void restore(Map<String, Position> stored) {
    for (final MapEntry(key: stream, value: position) in stored.entries) {
      final track = this.track(keyOf(stream));
      if (track.subscription?.handlers.state == null) track.received ??= position;
      track.done ??= position;
    }
  }

  /// Positions to be kept beyond this process. A stream with a state begins without.
  Map<String, Position> get stored => {
        for (final track in tracks.values)
          if (track.done != null && track.subscription?.handlers.state == null)
            track.key == 'client' ? 'client:${_owner.client}' : track.key: track.done!,
      };

  /// Positions of all streams up to which everything has arrived.
  Map<String, Position> get received => {
        for (final track in tracks.values)
          if (track.received != null) track.key == 'client' ? 'client:${_owner.client}' : track.key: track.received!,
      };

  bool get isSettled => tracks.values.every(
        (track) => !track.isWanted || (_connection?.members[track.key] == track.number && !track.isBusy),
      );

  /// Nothing is told to anybody any more.
  void stop() {
    for (final track in tracks.values) {
      track.subscription?.stop();
    }
  }

  // What comes

  void welcomed(Connection connection, Json streams) {
    _connection = connection;
    final later = connection.plan.later;
    for (final MapEntry(key: stream, value: at) in streams.entries) {
      final track = this.track(keyOf(stream));
      track
        ..isBusy = false
        ..isPassing = false;
      if (later.contains(track.key) && track.received != null) {
        track.isPassing = true; // by a lasting membership, from now on; ours is behind
      } else {
        _begin(track, stream, at as Json, connection.numbers[track.key] ?? 0);
      }
    }
    final named = {for (final stream in streams.keys) keyOf(stream)};
    for (final track in tracks.values.where((track) => !named.contains(track.key))) {
      track.isBusy = track.isPassing = false;
      if (!later.contains(track.key) && connection.numbers[track.key] == track.number) {
        track.received = null; // a left follows
      }
    }
    tracks.values.toList().forEach(reconcile);
  }

  /// The connection is gone; nothing is under way any more.
  void lost(Connection connection) {
    if (_connection == connection) _connection = null;
  }

  void take(Json event) {
    switch (event) {
      case {'type': 'message', 'stream': final String stream, 'epoch': final String epoch, 'offset': final int offset}:
        _message(stream, (epoch: epoch, offset: offset), event);
      case {'type': 'gap', 'stream': final String stream, 'epoch': final String epoch}:
        _gap(stream, epoch, event);
      case {'type': 'joined', 'stream': final String stream}:
        _joined(stream, event);
      case {'type': 'left', 'stream': final String stream, 'reason': final String reason}:
        _left(stream, reason);
    }
  }

  /// The track of [stream] where somebody hears it on this connection; else what comes of it is dropped.
  Track? _heard(String stream) {
    final track = tracks[keyOf(stream)];
    if (track == null || track.isPassing) return null;
    if (track.isWanted && _connection?.members[track.key] == track.number) return track;
    track.hasDropped = true;
    return null;
  }

  void _message(String stream, Position at, Json event) {
    final track = _heard(stream);
    if (track == null) return;
    final subscription = track.subscription!;
    final before = track.isOpen ? null : track.received; // null: whatever comes is taken
    final isHole = before != null && at.epoch == before.epoch && at.offset > before.offset + 1;
    if (before != null && at.epoch == before.epoch && at.offset <= before.offset) {
      duplicates += 1;
      return;
    }
    if (subscription.isFull) {
      track.isPassing = true;
      if (subscription.isHolding) {
        subscription.restart();
      } else {
        subscription.overflow();
      }
      return;
    }
    if (isHole || (before != null && at.epoch != before.epoch)) {
      final gap = Gap(
        stream,
        epoch: at.epoch,
        from: isHole ? before!.offset + 1 : null,
        to: at.offset - 1,
        reason: isHole ? 'hole' : 'reset',
      );
      subscription.add(gap, (epoch: at.epoch, offset: at.offset - 1));
    }
    final missedUpTo = track.missedUpTo;
    track
      ..received = at
      ..isOpen = false;
    final message = Message(
      stream,
      epoch: at.epoch,
      offset: at.offset,
      time: DateTime.fromMillisecondsSinceEpoch((event['time'] as num?)?.toInt() ?? 0),
      data: event['data'],
      client: event['client'] as String?,
      missed: missedUpTo != null && missedUpTo.epoch == at.epoch && at.offset <= missedUpTo.offset,
    );
    subscription.add(message, at);
  }

  void _gap(String stream, String epoch, Json event) {
    final track = _heard(stream);
    if (track == null) return;
    final to = event['to'] as int?;
    final before = track.received;
    var from = event['from'] as int?;
    if (before != null && before.epoch == epoch && !track.isOpen && from != null && from <= before.offset) {
      // It begins where its connection did, and the one before brought more since.
      if (to != null && to <= before.offset) return;
      from = before.offset + 1;
    }
    // Where the next offset is open, 0 of a new epoch may repeat messages but skips none.
    final after = to == null && before?.epoch == epoch ? before! : (epoch: epoch, offset: to ?? 0);
    track
      ..received = after
      ..isOpen = to == null;
    final gap = Gap(stream, epoch: epoch, from: from, to: to, reason: '${event['reason']}');
    track.subscription!.add(gap, after);
  }

  /// The application made the client a member.
  void _joined(String stream, Json event) {
    final track = this.track(keyOf(stream));
    final subscription = track.subscription;
    if (track.isPassing) return;
    if (subscription != null && !subscription.isWanted) {
      track.received = null;
      if (subscription.isLeft) {
        track.subscription = null; // it is nobody's, until somebody joins again
      } else {
        subscription.begin();
      }
    }
    _begin(track, stream, event, track.number);
    _owner.membersChanged();
  }

  void _left(String stream, String reason) {
    final track = tracks[keyOf(stream)];
    if (track == null) return;
    final number = _connection?.members.remove(track.key);
    final isOurs = number == null || number == track.number;
    if (track.isWanted && isOurs && !track.isBusy) {
      _ended(track, stream, reason);
    } else if (!track.isWanted) {
      track.received = track.done = null;
    }
    _owner.membersChanged();
  }

  void _ended(Track track, String stream, String reason) {
    track
      ..received = null
      ..done = null
      ..isPassing = false
      ..mustRejoin = false;
    track.subscription!.ended(reason, stream);
    _owner.positionsMoved();
  }

  /// [track] goes on behind the position that a welcome, a joined or a reply gave it.
  void _begin(Track track, String stream, Json at, int number) {
    final position = (epoch: at['epoch'] as String, offset: at['offset'] as int);
    final before = track.received;
    _connection!.members[track.key] = number;
    if (!track.isWanted || number != track.number) {
      track.received ??= position; // for a handler that may come later
      return;
    }
    final recovered = at['recovered'] as bool?;
    final top = at['top'] as int? ?? position.offset;
    final missed = at['missed'] as int? ?? 0;
    final isBehind = before != null && before.epoch == position.epoch && position.offset < before.offset;
    track
      ..isPassing = false
      ..mustRejoin = false
      ..isOpen = false
      ..hasDropped = false
      ..missedUpTo = missed > 0 ? (epoch: position.epoch, offset: top) : null
      // cursor=last begins at what was confirmed: what we have already is dropped as it comes
      ..received = isBehind && recovered != false ? before : position;
    final joined = Joined(stream, offset: position.offset, top: top, recovered: recovered, missed: missed);
    track.subscription!.begun(track.received!, joined);
  }

  // What was wished

  /// Brings the connection to what is wished of [track]. Called again after each answer.
  void reconcile(Track track) {
    final connection = _connection;
    if (connection == null || track.isBusy) return;
    final here = connection.members[track.key];
    if (!track.isGroup) {
      _reconcileOwn(track, connection);
    } else if (track.isWanted && (here == null || here == 0 || (here == track.number && track.mustRejoin))) {
      _join(track, connection);
    } else if (here != null && here != track.number || here == track.number && !track.isWanted) {
      if (here != 0 || (track.subscription?.isLeft ?? false)) _leave(track, connection);
    }
  }

  /// Own streams are there by themselves. To have them from another position one connects again.
  void _reconcileOwn(Track track, Connection connection) {
    if (!track.isWanted) return;
    if (track.mustRejoin || (connection.members[track.key] != track.number && track.hasDropped)) {
      track.isPassing = true;
      _owner.renew();
    } else if (connection.members[track.key] != track.number && track.received != null) {
      final (:epoch, :offset) = track.received!;
      final stream = track.key == 'client' ? 'client:${_owner.client}' : track.key;
      _begin(track, stream, {'epoch': epoch, 'offset': offset}, track.number);
      _owner.membersChanged();
    }
  }

  void _join(Track track, Connection connection) {
    final number = track.number;
    final position = track.received;
    track
      ..isBusy = true
      ..isPassing = true;
    final body = <String, Object?>{'type': 'join', 'group': groupOf(track.key)};
    if (position != null) body.addAll({'epoch': position.epoch, 'offset': position.offset});
    _order(track, connection, body, (reply) {
      track.isPassing = false;
      _begin(track, track.key, reply, number);
    }, (error) {
      if (_passing.contains(error.code)) return _owner.later(() => reconcile(track));
      if (track.number == number && track.isWanted) _ended(track, track.key, error.code);
      reconcile(track);
    });
  }

  void _leave(Track track, Connection connection) {
    track.isBusy = true;
    final body = {'type': 'leave', 'group': groupOf(track.key)};
    _order(track, connection, body, (_) => connection.members.remove(track.key), (_) {
      connection.members.remove(track.key);
      reconcile(track);
    });
  }

  /// Passes on the outcome unless another connection has come meanwhile, which began anew.
  void _order(
    Track track,
    Connection connection,
    Json body,
    void Function(Json) onReply,
    void Function(CommandError) onError,
  ) {
    _owner.order(connection, body, (reply) {
      if (connection != _connection) return;
      track.isBusy = false;
      onReply(reply);
      reconcile(track);
      _owner.membersChanged();
    }, (error) {
      if (connection != _connection) return;
      track.isBusy = false;
      onError(error);
      _owner.membersChanged();
    });
  }
}
