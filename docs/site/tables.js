// Wide tables are scrolled in a box of their own, which the theme makes and which keys could not reach.
addEventListener('load', () => {
  for (const box of document.querySelectorAll('.md-typeset__scrollwrap')) box.tabIndex = 0;
});
