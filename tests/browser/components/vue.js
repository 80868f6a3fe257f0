// A page of a test: the same as react.jsx, with Vue.

import { Tidegate } from 'tidegate-client';
import { useGroup, useGroupData, useMessages, useNewTidegate, useTidegate } from 'tidegate-client/vue';
import { createApp, h, ref } from 'vue';

const url = new URLSearchParams(location.search).get('url');

const List = {
  props: { id: String, group: String },
  setup(props) {
    const messages = useMessages(() => props.group, { limit: 3 });
    return () => h('ol', { id: props.id }, messages.value.map(({ data }) => h('li', JSON.stringify(data))));
  },
};

const Sum = {
  props: { group: String },
  setup(props) {
    const sum = ref(0);
    const { joined, left } = useGroup(() => props.group, ({ data }) => {
      sum.value += data;
    });
    return () => h('p', { id: 'sum' }, `${sum.value} ${joined.value} ${left.value}`);
  },
};

const Rows = {
  setup() {
    const { data, ready } = useGroupData('rows', {
      load: window.load,
      apply: (rows, { data: { key, value } }) => ({ ...rows, [key]: value }),
      initial: {},
    });
    return () => h('p', { id: 'rows' }, ready.value ? JSON.stringify(data.value) : 'loading');
  },
};

const State = {
  setup() {
    const { state } = useTidegate();
    return () => h('p', { id: 'state' }, state.value);
  },
};

const App = {
  setup() {
    useNewTidegate(() => new Tidegate(url, { client: 'alice' }));
    const group = ref('news');
    const more = ref(true);
    const button = (id, onClick) => h('button', { id, onClick }, id);
    return () => [
      h(State),
      button('chat', () => {
        group.value = 'chat';
      }),
      button('less', () => {
        more.value = false;
      }),
      h(List, { id: 'first', group: group.value }),
      more.value && h(List, { id: 'second', group: group.value }),
      h(Sum, { group: 'secret' }),
      h(Sum, { group: group.value }),
      h(Rows),
    ];
  },
};

let app = null;
window.up = () => {
  app = createApp(App);
  app.mount(document.body);
};
window.down = () => app.unmount();
