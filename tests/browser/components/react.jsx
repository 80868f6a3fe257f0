// A page of a test: two components that follow one group, and one with data, in StrictMode. It can be taken down and put up.

import { StrictMode, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { Tidegate } from 'tidegate-client';
import { TidegateProvider, useGroup, useGroupData, useMessages, useNewTidegate, useTidegate } from 'tidegate-client/react';

const url = new URLSearchParams(location.search).get('url');

function List({ id, group }) {
  const messages = useMessages(group, { limit: 3 });
  return <ol id={id}>{messages.map(({ offset, data }) => <li key={offset}>{JSON.stringify(data)}</li>)}</ol>;
}

function Sum({ group }) {
  const [sum, setSum] = useState(0);
  const { joined, left } = useGroup(group, ({ data }) => setSum(sum + data)); // a new handler with each render
  return <p id="sum">{`${sum} ${joined} ${left}`}</p>;
}

function Rows() {
  const { data, ready } = useGroupData('rows', {
    load: window.load,
    apply: (rows, { data: { key, value } }) => ({ ...rows, [key]: value }),
    initial: {},
  });
  return <p id="rows">{ready ? JSON.stringify(data) : 'loading'}</p>;
}

function State() {
  return <p id="state">{useTidegate().state}</p>;
}

function App() {
  const client = useNewTidegate(() => new Tidegate(url, { client: 'alice' }));
  const [group, setGroup] = useState('news');
  const [more, setMore] = useState(true);
  return (
    <TidegateProvider client={client}>
      <State />
      <button type="button" id="chat" onClick={() => setGroup('chat')}>chat</button>
      <button type="button" id="less" onClick={() => setMore(false)}>less</button>
      <List id="first" group={group} />
      {more && <List id="second" group={group} />}
      <Sum group="secret" />
      <Sum group={group} />
      <Rows />
    </TidegateProvider>
  );
}

let root = null;
window.up = () => {
  root = createRoot(document.body);
  root.render(<StrictMode><App /></StrictMode>);
};
window.down = () => root.unmount();
