import 'dart:async';
import 'dart:convert';

import 'package:flutter/material.dart';

import 'tidegate.dart';

const _url = String.fromEnvironment('TIDEGATE_URL', defaultValue: 'ws://127.0.0.1:8000/ws-notifications/');
const _client = String.fromEnvironment('TIDEGATE_CLIENT', defaultValue: 'alice');
const _group = String.fromEnvironment('TIDEGATE_GROUP', defaultValue: 'news');

void main() => runApp(
      MaterialApp(
        title: 'Tidegate and Flutter',
        theme: ThemeData(colorSchemeSeed: const Color(0xff0b7285)),
        home: const MessagesPage(),
      ),
    );

class MessagesPage extends StatefulWidget {
  const MessagesPage({super.key});

  @override
  State<MessagesPage> createState() => _MessagesPageState();
}

class _MessagesPageState extends State<MessagesPage> {
  Tidegate? _tidegate;
  Future<void> _running = Future<void>.value();
  List<StreamSubscription<Object>> _subscriptions = [];
  Status _status = const Status(Phase.idle);
  int? _delayMs;
  final List<Entry> _entries = [];

  @override
  void initState() {
    super.initState();
    _connect();
  }

  @override
  void dispose() {
    _disconnect();
    super.dispose();
  }

  void _connect() {
    _disconnect();
    final tidegate = _tidegate = Tidegate(Uri.parse(_url), client: _client, group: _group);
    _subscriptions = [
      tidegate.statuses.listen(
        (status) => setState(() {
          _status = status;
          _delayMs = null;
        }),
      ),
      tidegate.delays.listen((delayMs) => setState(() => _delayMs = delayMs)),
      tidegate.entries.listen((entry) => setState(() => _entries.insert(0, entry))),
    ];
    _running = _running.whenComplete(tidegate.start); // the one before has a cursor to store yet
  }

  void _disconnect() {
    _tidegate?.stop();
    for (final subscription in _subscriptions) {
      unawaited(subscription.cancel());
    }
  }

  @override
  Widget build(BuildContext context) {
    final delay = _delayMs == null ? '' : ' · $_delayMs ms';
    return Scaffold(
      appBar: AppBar(title: Text('$_client · ${_status.phase.name}$delay')),
      body: Column(
        children: [
          if (_status.phase == Phase.waiting)
            _banner('The connection was lost. Next try in ${_status.wait!.inMilliseconds} ms.'),
          if (_status.phase == Phase.ended)
            _banner('The gateway ended the connection: ${_status.reason} (${_status.code}).', again: true),
          Expanded(
            child: ListView.builder(
              itemCount: _entries.length,
              itemBuilder: (context, i) => _tile(_entries[i]),
            ),
          ),
        ],
      ),
    );
  }

  Widget _banner(String text, {bool again = false}) => MaterialBanner(
        content: Text(text),
        actions: [again ? TextButton(onPressed: _connect, child: const Text('Connect')) : const SizedBox()],
      );

  Widget _tile(Entry entry) => switch (entry) {
        Message(:final stream, :final offset, :final time, :final data, :final missed) => ListTile(
            leading: Icon(missed ? Icons.history : Icons.bolt),
            title: Text(jsonEncode(data)),
            subtitle: Text('$stream · $offset · ${TimeOfDay.fromDateTime(time).format(context)}'),
            trailing: missed ? const Chip(label: Text('missed')) : null,
          ),
        Gap(:final stream, :final from, :final to, :final reason) => ListTile(
            leading: Icon(Icons.warning_amber, color: Theme.of(context).colorScheme.error),
            title: Text(
              reason == 'reset'
                  ? 'The history began anew; messages may be lost.'
                  : 'Messages $from to $to came too long ago and are lost.',
            ),
            subtitle: Text(stream),
          ),
      };
}
