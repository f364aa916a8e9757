(() => {
  const data = document.getElementById('picks'), select = document.getElementById('by');
  document.addEventListener('play', e => document.querySelectorAll('audio').forEach(a => a !== e.target && a.pause()), true);
  if (!data || !select) return;
  const picks = JSON.parse(data.textContent), rest = document.getElementById('further');
  const show = metric => {
    document.querySelectorAll('.clip').forEach(card => rest.append(card));
    document.querySelectorAll('[data-group]').forEach(group => {
      const ids = picks[metric][group.dataset.group];
      ids.forEach(id => group.append(document.getElementById(id)));
      group.parentElement.hidden = !ids.length;
    });
    document.querySelectorAll('[data-metric]').forEach(name => { name.textContent = metric; });
    document.querySelectorAll('[data-of]').forEach(f => f.classList.toggle('chosen', f.dataset.of === metric));
    document.getElementById('said').textContent = 'Clips by ' + metric;
  };
  document.querySelector('.chooser').hidden = false;
  rest.hidden = true;
  select.addEventListener('change', () => show(select.value));
  if (select.value in picks) show(select.value);
})();
