// Drives the library for tests/clients: one JSON object per line, in and out. The orders are in clients/README.md.

import 'dart:async';
import 'dart:convert';
import 'dart:io';

import 'package:tidegate_client/src/verdict.dart' show chance;
import 'package:tidegate_client/tidegate_client.dart';

late final Tidegate tidegate;
final subscriptions = <String, Subscription>{};
final storage = DriverStorage();
final asked = <Question>[]; // the oldest first

/// Something that waits for a line: a `token`, or the `state` of a group.
typedef Question = ({String what, String? group, int n, Completer<Map<String, Object?>> answer});

void say(Map<String, Object?> line) => stdout.writeln(jsonEncode(line));

Future<void> main() async {
  say({'ready': true});
  final lines = stdin.transform(utf8.decoder).transform(const LineSplitter());
  await for (final line in lines) {
    take(jsonDecode(line) as Map<String, Object?>);
  }
  exit(0);
}

void take(Map<String, Object?> line) {
  switch (line) {
    case {'token': _} || {'token_error': _}:
      answer('token', line);
    case {'state': _} || {'state_error': _}:
      answer('state', line);
    case {'do': 'open'}:
      open(line);
    case {'do': 'group' || 'direct' || 'all'}:
      subscribe(line);
    case {'do': 'join'}:
      final known = subscriptions[line['group']];
      known == null ? subscribe({'do': 'group', 'group': line['group']}) : known.join();
    case {'do': 'leave'}:
      subscriptions[line['group']]?.leave();
    case {'do': 'connect'}:
      tidegate.connect();
    case {'do': 'disconnect'}:
      tidegate.disconnect();
    case {'do': 'close'}:
      tidegate.close();
    case {'do': 'wake'}:
      tidegate.wake();
    case {'do': 'stored'}:
      say({
        'stored': {for (final MapEntry(:key, :value) in storage.items.entries) key: jsonDecode(value)},
      });
    case {'do': 'positions'}:
      say({
        'positions': {
          for (final MapEntry(:key, :value) in tidegate.positions.entries) key: [value.epoch, value.offset],
        },
      });
    default:
      unawaited(command(line));
  }
}

Duration? seconds(Map<String, Object?> options, String key) =>
    options[key] is num ? Duration(milliseconds: ((options[key] as num) * 1000).round()) : null;

void open(Map<String, Object?> line) {
  final given = line['options'] as Map<String, Object?>? ?? {};
  const usual = Options();
  final backoff = given['backoff_s'] as List<Object?>? ?? [0.5, 30];
  Duration delay(int i) => Duration(milliseconds: ((backoff[i] as num) * 1000).round());
  if (given['chance'] case final num fixed) chance = () => fixed.toDouble();
  storage.isBroken = given['storage'] == 'throws';
  if (given['storage'] case final Map<String, Object?> items) {
    storage.items.addAll({
      for (final MapEntry(:key, :value) in items.entries) key: value is String ? value : jsonEncode(value),
    });
  }
  tidegate = Tidegate(
    Uri.parse(line['url'] as String),
    Options(
      token: switch (given['token']) {
        final String fixed => Token.fixed(fixed),
        null => null,
        _ => Token.from(askToken),
      },
      client: given['client'] as String?,
      device: given['device'] as String?,
      last: given['last'] as bool? ?? false,
      storage: given['storage'] == null ? null : storage,
      autoConnect: given['autoConnect'] as bool? ?? true,
      welcomeTimeout: seconds(given, 'welcomeTimeout_s') ?? usual.welcomeTimeout,
      answerTimeout: seconds(given, 'answerTimeout_s') ?? usual.answerTimeout,
      pingInterval: seconds(given, 'pingInterval_s'),
      pongTimeout: seconds(given, 'pongTimeout_s') ?? usual.pongTimeout,
      firstDelay: delay(0),
      longestDelay: delay(1),
      stable: seconds(given, 'stable_s') ?? usual.stable,
      giveUpAfter: seconds(given, 'giveUpAfter_s'),
      queueLimit: given['queueLimit'] as int? ?? usual.queueLimit,
    ),
  );
  tidegate.states.listen(
    (state) => say({
      'state': state.name,
      if (tidegate.reason case final Reason reason) ...{'word': reason.word, 'code': reason.code},
    }),
  );
  tidegate.errors.listen((error) => say({'heard': 'error', 'message': '$error'}));
}

/// Says that an answer is wanted, the [n]th of its kind, and waits for it.
Future<Map<String, Object?>> ask(String what, String? group, int n) {
  final question = (what: what, group: group, n: n, answer: Completer<Map<String, Object?>>());
  asked.add(question);
  say({'asks': what, if (group != null) 'group': group, 'n': n});
  return question.answer.future;
}

void answer(String what, Map<String, Object?> line) {
  final n = line['n'];
  final index = asked.indexWhere(
    (question) => question.what == what && question.group == line['group'] && (n == null || n == question.n),
  );
  if (index >= 0) asked.removeAt(index).answer.complete(line);
}

int tokensAsked = 0;

Future<String?> askToken() async {
  final line = await ask('token', null, ++tokensAsked);
  if (line['token_error'] case final Object error) throw StateError('$error');
  return line['token'] as String?;
}

Future<Position?> Function() askingState(String? group) {
  var n = 0;
  return () async {
    final line = await ask('state', group, ++n);
    if (line['state_error'] case final Object error) throw StateError('$error');
    if (line case {'state': {'position': {'epoch': final String epoch, 'offset': final int offset}}}) {
      return (epoch: epoch, offset: offset);
    }
    return null;
  };
}

void subscribe(Map<String, Object?> line) {
  final group = line['group'] as String?;
  final slow = Duration(milliseconds: line['slow_ms'] as int? ?? 0);
  var inside = line['inside'] as Map<String, Object?>?;
  final handlers = Handlers(
    onMessage: (message) async {
      say({
        'heard': 'message',
        'stream': message.stream,
        'epoch': message.epoch,
        'offset': message.offset,
        'data': message.data,
        'missed': message.missed,
      });
      final order = inside;
      inside = null;
      if (order != null) take(order);
      if (slow > Duration.zero) await Future<void>.delayed(slow);
      if (line['throws'] == true) throw StateError('as was asked');
    },
    onGap: (gap) => say({
      'heard': 'gap',
      'stream': gap.stream,
      'epoch': gap.epoch,
      'from': gap.from,
      'to': gap.to,
      'reason': gap.reason,
    }),
    onJoined: (joined) => say({
      'heard': 'joined',
      'stream': joined.stream,
      'offset': joined.offset,
      'recovered': joined.recovered,
    }),
    onLeft: (left) => say({'heard': 'left', 'stream': left.stream, 'reason': left.reason}),
    state: line['state'] == true ? askingState(group) : null,
  );
  final subscription = switch (line['do']) {
    'direct' => tidegate.direct(handlers),
    'all' => tidegate.all(handlers),
    _ => tidegate.group(group!, handlers),
  };
  if (group != null) subscriptions[group] = subscription;
}

Future<void> command(Map<String, Object?> line) async {
  final group = line['group'] as String? ?? '';
  try {
    final Object? reply = switch (line['do']) {
      'publish' => _position(
          await tidegate.publish(
            group,
            line['data'],
            key: line['key'] is String ? line['key'] as String : null,
            keyed: line['key'] != false,
            conflate: line['conflate'] as String?,
            traceparent: line['traceparent'] as String?,
          ),
        ),
      'history' => await tidegate.history(group, position: _given(line['position']), limit: line['limit'] as int?),
      'presence' => await tidegate.presence(group),
      'call' => await tidegate.call(line['method'] as String, line['data'], line['traceparent'] as String?),
      'refresh' => {'expires': await tidegate.refresh(line['token'] as String)},
      'ping' => {'ms': (await tidegate.ping()).inMilliseconds},
      _ => throw CommandError('bad_request', 'no such order'),
    };
    say({'answer': line['as'], 'reply': reply});
  } on CommandError catch (error) {
    say({'answer': line['as'], 'error': error.code});
  }
}

Map<String, Object?> _position(Position at) => {'epoch': at.epoch, 'offset': at.offset};

Position? _given(Object? position) => switch (position) {
      {'epoch': final String epoch, 'offset': final int offset} => (epoch: epoch, offset: offset),
      _ => null,
    };

class DriverStorage implements Storage {
  final items = <String, String>{};
  bool isBroken = false;

  @override
  String? getItem(String key) => _usable()[key];

  @override
  void setItem(String key, String value) => _usable()[key] = value;

  @override
  void removeItem(String key) => _usable().remove(key);

  Map<String, String> _usable() => isBroken ? throw StateError('no storage here') : items;
}
