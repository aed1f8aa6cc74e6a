for (const slider of document.querySelectorAll('.compare input[type=range]')) {
  const stack = slider.closest('.compare').querySelector('.stack');
  const move = () => stack.style.setProperty('--at', slider.value + '%');
  slider.addEventListener('input', move);
  stack.addEventListener('pointermove', event => {
    if (event.pointerType === 'mouse' && !event.buttons) return;
    const box = stack.getBoundingClientRect();
    slider.value = Math.round(100 * (event.clientX - box.left) / box.width);
    move();
  });
  move();
}
